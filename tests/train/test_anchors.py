"""Anchors of the training set's own boxes: fitted, recorded with the run, and shown by ``data check``."""

import json

import numpy as np
import pytest

from crosshead.cli import main
from crosshead.data.datasets.registry import open_splits
from crosshead.data.tools.box_statistics import box_statistics
from crosshead.recipe import load_recipe
from crosshead.recipe.schema import Recipe
from crosshead.train.anchors import anchoring, fitted_anchors, mean_overlap, seen_boxes, with_fitted_anchors
from crosshead.train.inference import load_run
from detect_files import coco_folder

BACKBONE = {"depths": [1, 1], "dims": [8, 16], "num_heads": [1, 2], "attention_stages": [1], "landmarks": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coco_folder(tmp_path_factory.mktemp("anchors") / "data")


def detect_recipe(folder, name="retinanet", **detector):
    values = load_recipe("detect_folder", [f"data.root={folder}"]).model_dump(mode="json")
    values["model"]["args"] = BACKBONE
    small = {"pyramid": {"width": 8, "extra": "none"}, "norm": True} if name == "retinanet" else {}
    small = small or ({} if name == "fcos" else {"pyramid": {"width": 8, "extra": "none"}, "box_width": 16})
    values["model"]["detector"] = {"name": name, "anchors": "auto"} | small | detector
    values["data"] |= {"image_size": 64, "eval_resize": None, "longest": None, "batch_size": 2}
    values["train"] |= {"steps": 2, "device": "cpu"}
    values["schedule"] |= {"warmup_steps": 0}
    values["log"] |= {"tensorboard": False, "forecast": False}
    return Recipe.model_validate_json(json.dumps(values))


def test_boxes_are_those_of_the_files_at_the_size_that_is_seen(folder):
    recipe = detect_recipe(folder)
    sizes = seen_boxes(recipe, open_splits(recipe))
    assert {tuple(each) for each in sizes.tolist()} == {(14.0, 14.0), (8.0, 26.0)}
    larger = recipe.model_copy(update={"data": recipe.data.model_copy(update={"eval_resize": 88})})
    assert np.allclose(seen_boxes(larger, open_splits(larger)), 2 * sizes)


def test_overlap_is_what_boxes_drawn_out_have():
    def drawn(box, side, ratio, stride):
        y, x = np.mgrid[0:160, 0:160] + 0.5
        (h, w), (ah, aw) = box, (side * ratio**0.5, side / ratio**0.5)
        one = (abs(y - 80) < h / 2) & (abs(x - 80) < w / 2)
        two = (abs(y - 80 - stride / 4) < ah / 2) & (abs(x - 80 - stride / 4) < aw / 2)
        return (one & two).sum() / (one | two).sum()

    for box, shape in (
        ((40, 20), (32, 1, 16)),
        ((10, 12), (64, 1, 8)),
        ((60, 60), (60, 1, 0)),
        ((8, 8), (8, 1, 32)),
    ):
        assert mean_overlap(np.array([box], float), [shape]) == pytest.approx(drawn(box, *shape), abs=0.02)
    best = mean_overlap(np.array([[60.0, 60.0]]), [(8, 1, 8), (60, 1, 0)])
    assert best == 1.0


@pytest.mark.parametrize("name", ["retinanet", "faster_rcnn"])
def test_fitted_anchors_suit_the_boxes_better(folder, name):
    recipe = detect_recipe(folder, name)
    splits = open_splits(recipe)
    before, fitted = anchoring(recipe, splits, {}), fitted_anchors(recipe, splits)
    assert fitted.overlap > before.overlap + 0.02
    resolved, told = with_fitted_anchors(recipe, splits)
    assert f"mean overlap {fitted.overlap:.2f}, {before.overlap:.2f} with" in told
    assert fitted.options.items() <= resolved.model.detector.options.items()
    assert with_fitted_anchors(resolved, splits) == (resolved, "")  # numbers that are said stay
    ratios = resolved.model.detector.options["ratios"]
    assert len(ratios) == 3 and min(ratios) == pytest.approx(8 / 26, abs=0.01)
    if name == "faster_rcnn":
        sides = resolved.model.detector.options["anchor_sizes"]
        assert sides == sorted(sides) and sides[0] == pytest.approx(14, abs=1)


def test_a_run_keeps_its_anchors_and_goes_on_with_them(folder, tmp_path):
    from crosshead.train import train

    recipe = detect_recipe(folder)
    first = train(recipe, folder=tmp_path / "run")
    recorded = load_run(tmp_path / "run").recipe.model.detector
    assert first.status == "finished" and recorded.anchors == "auto" and "anchor_size" in recorded.options
    sizes = load_run(tmp_path / "run").model.net.anchor_generator.generator.sizes
    assert sizes[0][0] == pytest.approx(4 * recorded.options["anchor_size"])
    # Other boxes would give others: the recipe, which says auto still, goes on with those of the run.
    longer = recipe.model_copy(update={"train": recipe.train.model_copy(update={"steps": 3})})
    assert train(longer, folder=tmp_path / "run", resume=True).step == 3
    assert load_run(tmp_path / "run").recipe.model.detector == recorded


def test_a_detector_without_anchors_is_refused(folder):
    recipe = detect_recipe(folder, "fcos")
    with pytest.raises(ValueError, match="fcos has no anchors"):
        with_fitted_anchors(recipe, open_splits(recipe))


def test_statistics_of_boxes():
    one = np.array([[0, 0, 10, 20], [1, 0, 11, 20], [50, 50, 60, 60]], float)
    found = box_statistics([one, np.zeros((0, 4))])
    assert found.a_picture == (0, 1.5, 3) and found.overlapping == pytest.approx(2 / 3)
    assert found.aspects[1] == 2 and found.sides[0] < found.sides[2] == pytest.approx(200**0.5)
    assert box_statistics([np.zeros((0, 4))]) is None


def test_data_check_shows_boxes_and_anchors(folder, tmp_path, capsys):
    words = [f"data.root={folder}", "model.detector.pyramid.width=8", "model.detector.pyramid.extra=none"]
    assert main(["data", "check", "detect_folder", *words]) == 0
    said = capsys.readouterr().out
    assert "train: boxes: sides 14 / 14" in said and "objects a picture" in said
    assert "with model.detector.anchors=auto (ratios=" in said
    assert main(["data", "check", "coco-folder", "--data-path", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["boxes"]["sides"][1] == 14.0

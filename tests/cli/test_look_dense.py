"""crosshead heads, look and atlas on runs that segment or detect, as a person would call them."""

import json

import numpy as np
import pytest
from PIL import Image

from crosshead.cli import main
from crosshead.data.datasets import scenes
from crosshead.heads import sheets as drawing

RENDERED = True  # pictures are looked at

TINY = [
    "data.image_size=64",
    "data.batch_size=2",
    "train.steps=1",
    "schedule.warmup_steps=0",
    "log.tensorboard=false",
]
TINY += [
    "model.args.depths=[1,1,1]",
    "model.args.dims=[8,12,16]",
    "model.args.num_heads=[1,2,2]",
    "train.device=cpu",
]
TINY += ["model.args.landmarks=2", "train.ema_decay=null"]


@pytest.fixture(scope="module", autouse=True)
def few_scenes():
    with pytest.MonkeyPatch.context() as patch:
        for split in ("validation", "test"):
            patch.setitem(scenes.LENGTHS, split, 8)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    small = [
        "model.segmenter.width=32",
        "model.segmenter.pyramid.width=8",
        f"output={folder}",
        "name=segments",
    ]
    assert main(["train", "scenes_semantic_fpn", *TINY, *small]) == 0
    noise = np.random.default_rng(0).integers(0, 255, (40, 72, 3)).astype("uint8")
    Image.fromarray(noise).save(folder / "scene.png")
    return folder


def test_heads_of_a_segmenter_are_measured_with_its_masks(place):
    assert main(["heads", str(place / "segments"), "--images", "8", "--masks"]) == 0
    found = json.loads((place / "segments" / "heads.json").read_text())
    assert [layer["tokens"] for layer in found["layers"]] == [64, 16]
    assert all(len(layer["values"]["alignment"]) == 2 for layer in found["layers"])


def test_a_segmenter_is_looked_into_and_explored(place, tmp_path, capsys):
    words = [str(place / "segments"), str(place / "scene.png")]
    assert main(["look", *words, "--query", "20,20,50,39", "--output", str(tmp_path)]) == 0
    assert Image.open(tmp_path / "scene.segments.heads.png").width > 300
    assert main(["atlas", *words, "--output", str(tmp_path / "page.html")]) == 0
    assert '"width": 80' in (tmp_path / "page.html").read_text().replace('"width":80', '"width": 80')
    capsys.readouterr()
    for more, message in (
        (["--gradient", "3"], "says a class of parts of the picture"),
        (["--query", "90,10"], "not in the picture of 80 x 48"),
        (["--query", "cls"], "sees no class token"),
    ):
        assert main(["look", *words, *more]) == 2
        assert message in capsys.readouterr().err
    assert main(["heads", words[0], "--ablate"]) == 2
    assert "name a run that classifies" in capsys.readouterr().err


@pytest.fixture(scope="module")
def detector(place):
    """One that has learned nothing yet finds much, with little score."""
    small = [
        "model.detector.anchor_sizes=[16,24,32]",
        "model.detector.box_width=16",
        "model.detector.mask_layers=[8]",
    ]
    small += [
        "model.detector.pyramid.width=8",
        "model.detector.proposals=[20,10,20,10]",
        "task.score_threshold=0.0",
    ]
    assert main(["train", "scenes_mask_rcnn", *TINY, *small, f"output={place}", "name=detects"]) == 0
    return place / "detects"


def test_heads_of_a_detector_are_measured_with_its_masks(detector):
    assert main(["heads", str(detector), "--images", "8", "--masks"]) == 0
    found = json.loads((detector / "heads.json").read_text())
    assert [layer["tokens"] for layer in found["layers"]] == [64, 16]
    assert all(len(layer["values"]["alignment"]) == 2 for layer in found["layers"])


def test_a_box_that_was_found_is_looked_at(detector, place, tmp_path, capsys, monkeypatch):
    """The box of a picture of 40 x 72, in its pixels, which the model sees with padding."""
    words, asked = [str(detector), str(place / "scene.png"), "--output", str(tmp_path)], []
    capsys.readouterr()
    assert main(["predict", *words[:2], "--json"]) == 0
    objects = json.loads(capsys.readouterr().out)[0]["objects"]
    name = objects[1]["class"]
    rank = [each["class"] for each in objects[:2]].count(name)
    draw = drawing.draw_sheet
    monkeypatch.setattr(drawing, "draw_sheet", lambda *a, **more: asked.append(more) or draw(*a, **more))
    for more in (["--detection", "2"], ["--detection", str(rank), "--of-class", name]):
        assert main(["look", *words, *more]) == 0
    x, y, wide, high = objects[1]["bbox"]
    for each in asked:
        assert each["query"] == pytest.approx((x, y, min(x + wide, 72), min(y + high, 40)), abs=0.01)
        assert f": {name}, score {objects[1]['score']:.2f}" in each["title"]
    assert Image.open(tmp_path / "scene.detects.heads.png").width > 300


def test_a_box_that_is_not_there_is_one_line(detector, place, capsys):
    picture = str(place / "scene.png")
    for words, message in (
        (
            [detector, picture, "--detection", "9999"],
            "there is no detection 9999 in scene.png; of what scores 0 ",
        ),
        ([detector, picture, "--detection", "9999", "--of-class", "3"], "no detection 9999 of class 3 in"),
        ([detector, picture, "--detection", "1", "--of-class", "33"], "no class '33'; the nearest is '3'"),
        ([detector, picture, "--detection", "0"], "expected 1 for the best object, or more, got 0"),
        ([detector, picture, "--of-class", "3"], "give both"),
        ([detector, picture, "--gradient", "3"], "says a class of parts of the picture"),
        ([place / "segments", picture, "--detection", "1"], "a run of task.name=segment finds no objects"),
    ):
        assert main(["look", *map(str, words)]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1


def test_a_detector_is_explored(detector, place, tmp_path):
    words = [str(detector), str(place / "scene.png"), "--beside", str(place / "segments")]
    assert main(["atlas", *words, "--output", str(tmp_path / "page.html")]) == 0
    assert "scene.png (" in (tmp_path / "page.html").read_text()

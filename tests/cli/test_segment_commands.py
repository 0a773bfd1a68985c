"""The commands on a run that tells pixels apart: predict, eval, data check."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from crosshead.cli import main
from map_files import map_folder

WORDS = [
    "data.name=map-folder", "data.image_size=32", "data.batch_size=4", "data.validation=0.25", "model.name=ivit_tiny",
    "model.args.depths=[1,1,1]", "model.args.dims=[8,12,16]", "model.args.num_heads=[1,2,2]",
    "model.args.attention_stages=[2]", "model.args.landmarks=2", "train.steps=2", "train.device=cpu",
    "log.tensorboard=false", "schedule.warmup_steps=0",
]  # fmt: skip
RECIPE = "base: shared/segment\nmodel:\n  segmenter:\n    name: semantic_fpn\n    width: 32\n    pyramid: {width: 8}\n"


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """The folder of a short run, and that of its data."""
    folder = tmp_path_factory.mktemp("segmented")
    root = map_folder(folder / "data", count=8)
    (folder / "own.yaml").write_text(RECIPE)
    words = [*WORDS, f"data.root={root}", "--output", str(folder)]
    assert main(["train", str(folder / "own.yaml"), *words]) == 0
    return folder / "own", root


def test_predict_writes_maps_and_drawings(segmented, tmp_path, capsys):
    run, root = segmented
    capsys.readouterr()
    (other := tmp_path / "other").mkdir()
    Image.open(root / "images" / "1.png").resize((75, 41)).save(other / "1.png")
    out = tmp_path / "out"
    words = [str(run), str(root / "images" / "1.png"), str(other), "--out", str(out), "--json"]
    assert main(["predict", *words]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["map"] == str(out / "1.map.png") and second["map"] == str(out / "1-2.map.png")
    for answer, size in ((first, (24, 20)), (second, (75, 41))):
        picture, drawn = Image.open(answer["map"]), Image.open(answer["drawn"])
        assert picture.mode == "P" and picture.size == drawn.size == size
        numbers, counts = np.unique(np.asarray(picture), return_counts=True)
        found = {segment["index"]: segment["pixels"] for segment in answer["segments"]}
        assert found == dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    assert main(["predict", str(run), str(other / "1.png"), "--window", "32"]) == 0
    assert "%  " in capsys.readouterr().out


def test_eval_tells_every_class(segmented, capsys):
    run, _ = segmented
    capsys.readouterr()
    assert main(["eval", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "mIoU" in lines[0] and lines[1].split() == ["class", "iou", "accuracy", "pixels"]
    assert [line.split()[0] for line in lines[2:]] == ["ground", "sky", "tree"]
    assert main(["eval", str(run), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["classes"]) == 3


def test_several_views_of_maps(segmented, capsys):
    capsys.readouterr()
    assert main(["eval", str(segmented[0]), "--tta", "flip,scales"]) == 0
    assert "6 views a picture" in capsys.readouterr().out


def test_judge_shows_the_worst_maps_and_eval_writes_every_pictures_scores(segmented, tmp_path, capsys):
    run, root = segmented
    capsys.readouterr()
    assert main(["judge", str(run), "--pictures", "2"]) == 0
    said = capsys.readouterr().out
    assert "boundary IoU" in said and "mIoU a picture" in said and "very pictures that chose it" in said
    assert (run / "judging.html").read_text().count("<figure>") == 2
    file = tmp_path / "scores.csv"
    assert main(["eval", str(run), "--predictions", str(file)]) == 0
    lines = file.read_text().splitlines()
    assert lines[0] == "path,miou,dice,boundary_iou,pixel_accuracy" and lines[1].startswith(str(root))


def test_the_check_counts_pixels_of_classes(segmented, capsys):
    _, root = segmented
    assert main(["data", "check", "map-folder", "--data-path", str(root), "data.validation=0.25"]) == 0
    out = capsys.readouterr().out
    assert "pixels of class" in out and "of the pixels" in out and "6 images" in out


def test_what_does_not_fit_together_is_one_line(segmented, run, tmp_path, fails):
    _, root = segmented
    picture = root / "images" / "1.png"
    assert "sees each picture whole" in fails("predict", run, picture, "--window", "16")
    assert "draws nothing" in fails("predict", run, picture, "--out", tmp_path / "out")
    (tmp_path / "file").write_text("")
    assert "can't be made" in fails("predict", segmented[0], picture, "--out", tmp_path / "file" / "out")
    assert "have maps" in fails(
        "train",
        "digits",
        "data.name=map-folder",
        "data.batch_size=2",
        f"data.root={root}",
        "--output",
        tmp_path,
    )
    (tmp_path / "own.yaml").write_text(RECIPE)
    assert "have no maps" in fails(
        "train", tmp_path / "own.yaml", *WORDS, "data.name=digits", "--output", tmp_path
    )


@pytest.mark.soak
def test_export_writes_the_whole_segmenter(segmented, run, tmp_path, capsys, fails):
    out = tmp_path / "whole.pt2"
    capsys.readouterr()
    assert main(["export", str(segmented[0]), "--out", str(out), "--size", "32x48"]) == 0
    told = capsys.readouterr().out
    assert "the whole model" in told and "batch x 3 x 32 x 48" in told and "1 x 3 x 8 x 12" in told
    assert "is there already" in fails("export", segmented[0], "--out", out)
    assert "there is no folder" in fails("export", run, "--out", tmp_path / "no" / "x.pt2")
    assert "height and width" in fails("export", run, "--out", tmp_path / "x.pt2", "--size", "32")
    assert "has no pyramid" in fails("export", run, "--out", tmp_path / "x.pt2", "--pyramid")
    assert main(["export", str(run), "--out", str(out), "--force"]) == 0
    assert "batch x 1 x 8 x 8" in capsys.readouterr().out
    extra = {"about.json": ""}
    torch.export.load(out, extra_files=extra)
    about = json.loads(extra["about.json"])
    assert about["classes"] == [str(i) for i in range(10)] and len(about["mean"]) == 1

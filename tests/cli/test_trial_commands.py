"""``crosshead profile``, ``crosshead augment`` and what ``train`` says before it begins."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from cli.conftest import SHORT
from crosshead.cli import main
from crosshead.data.base import DatasetInfo
from crosshead.train.logging.sheet import captions, sheet
from crosshead.train.tools.profile import Forecast


def test_a_profile_is_a_table_or_json(capsys):
    words = ["profile", "digits", "data.batch_size=8", "--steps", "2", "--device", "cpu"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[1:6]] == [
        "data",
        "forward",
        "backward",
        "optimizer",
        "step",
    ]
    assert "median of 2 steps of 8 images on cpu" in said
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 8


def test_a_sheet_shows_the_pictures_as_they_were_before_normalising(tmp_path, capsys):
    assert main(["augment", "digits", "--count", "5", "--out", str(tmp_path / "sheet.png")]) == 0
    assert "5 pictures of digits" in capsys.readouterr().out
    assert Image.open(tmp_path / "sheet.png").size[0] > 200
    info = DatasetInfo("toy", ("a", "b"), 3, (0.2, 0.5, 0.7), (0.1, 0.2, 0.3))
    pixels = torch.rand(3, 100, 120)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (info.mean, info.std))
    drawn = np.asarray(sheet([(pixels - mean) / std], [0], ["caption"], info))[6:106, 6:126]
    assert np.abs(drawn / 255 - pixels.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6


def test_captions_tell_targets_of_every_kind():
    assert captions(torch.tensor([1, 0]), ("a", "b"), 2) == ["b", "a"]
    assert captions(torch.tensor([[0.85, 0.15], [0.0, 1.0]]), ("a", "b"), 2) == ["a 85%, b 15%", "b"]
    assert captions(torch.tensor([0.5]), (), 1) == ["0.5"]
    objects = [{"labels": torch.tensor([1, 0, 1])}, {"labels": torch.tensor([], dtype=torch.int64)}]
    assert captions(objects, ("a", "b"), 2) == ["2 x b, 1 x a", "no object"]
    classes = torch.tensor([[[0, 1], [255, 1]]])
    assert captions(classes, ("a", "b"), 1) == ["b 50%, a 25%"]


def test_what_has_a_place_is_drawn_onto_its_picture():
    info = DatasetInfo("x", ("a", "b"), 1, (0.5,), (0.5,))
    grey = torch.zeros(1, 96, 96)
    boxes = {"boxes": torch.tensor([[10.0, 20, 40, 60]]), "labels": torch.tensor([1])}
    masks = torch.zeros(1, 90, 90, dtype=torch.uint8)
    masks[0, 70:80, 70:80] = 1
    classes = torch.full((96, 96), 255)
    classes[:48] = 1
    for target, changed, same in (
        (boxes, (20, 10), (40, 25)),
        (boxes | {"masks": masks}, (75, 75), (40, 25)),
        (classes, (10, 10), (60, 10)),
        (torch.full((96, 96), 255), None, (60, 10)),
        ({"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}, None, (10, 10)),
    ):
        drawn = np.asarray(sheet([grey], [target], [""], info))[6:102, 6:102]
        assert drawn[same].tolist() == [128, 128, 128]
        assert changed is None or len(set(drawn[changed].tolist())) > 1


@pytest.mark.parametrize(
    ("seconds", "hours"), [(300.0, False), pytest.param(20_000.0, True, marks=pytest.mark.soak)]
)
def test_training_says_first_how_long_it_will_take(seconds, hours, tmp_path, capsys, monkeypatch):
    told = Forecast(1.5, 3, 200, seconds, "cpu with 1 threads", "vit_tiny_patch16_224")
    monkeypatch.setattr("crosshead.train.tools.profile.forecast", lambda recipe: told)
    words = ["train", "digits", *SHORT, "train.epochs=1", "data.batch_size=256", "log.tensorboard=false"]
    assert main([*words, "log.forecast=true", "--output", str(tmp_path)]) == 0
    first, about, *rest = capsys.readouterr().out.splitlines()
    assert first == "measuring a few steps"
    assert "on cpu with 1 threads: 200 steps of 1.5 s (median of 3)" in about
    assert ("model.name=vit_tiny_patch16_224" in rest[0]) == hours


def test_mistakes_are_one_line(fails, tmp_path):
    assert "no recipe is named" in fails("profile")
    assert "--steps: expected at least 1" in fails("profile", "digits", "--steps", "0")
    assert "--count: expected at least 1" in fails("augment", "digits", "--count", "0")
    assert str(tmp_path / "no") in fails("augment", "digits", "--out", tmp_path / "no" / "sheet.png")

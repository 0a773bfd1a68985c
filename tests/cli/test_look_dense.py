"""crosshead heads, look and atlas on runs that segment or detect, as a person would call them."""

import json

import numpy as np
import pytest
from PIL import Image

from crosshead.cli import main

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

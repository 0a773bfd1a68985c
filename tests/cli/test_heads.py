"""crosshead heads, look and atlas on a run, as a person would call them."""

import json

import numpy as np
import pytest
import safetensors.torch
import timm
from PIL import Image

from crosshead.cli import main
from crosshead.pages import embedding

RENDERED = True  # pictures are looked at

TINY = ["model.name=mohsa_vit_micro_patch4_32", "model.overlap=constant:3", "model.args.embed_dim=32"]
TINY += ["model.args.depth=2", "model.args.num_heads=2", "data.image_size=8", "train.epochs=1"]
TINY += ["schedule.warmup_epochs=0", "log.tensorboard=false"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    for seed in range(3):
        for name, more in (("plain", ["model.overlap=none"]), ("lapped", [])):
            words = ["train", "digits_mohsa", *TINY, *more, f"name={name}{seed}", f"train.seed={seed}"]
            assert main([*words, f"output={folder}"]) == 0
    Image.fromarray((np.arange(64).reshape(8, 8) * 4).astype("uint8")).save(folder / "ramp.png")
    return folder


def test_heads_are_measured_and_told(place, capsys):
    assert main(["heads", str(place / "lapped0"), "--images", "20", "--masks", "--ablate"]) == 0
    out = capsys.readouterr().out
    assert "20 images of test" in out and "overlap" in out and "loss without a head" in out
    found = json.loads((place / "lapped0" / "heads.json").read_text())
    assert [layer["kind"] for layer in found["layers"]] == ["overlap", "overlap"]
    assert len(found["layers"][0]["values"]["entropy"]) == 2
    assert len(found["ablation"][1]["source"]) == 2


def test_recipes_are_compared_over_seeds(place, capsys, tmp_path):
    runs = [[str(place / f"{name}{seed}") for seed in range(3)] for name in ("plain", "lapped")]
    assert main(["heads", *runs[0], "--against", *runs[1], "--images", "16", "--output", str(tmp_path)]) == 0
    assert "Welch's t on the seeds' means, Holm" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "heads_against.json").read_text())
    assert numbers["seeds"] == [3, 3] and "output_variance, block 1" in numbers["differences"]
    with Image.open(tmp_path / "heads_against.png") as picture:
        assert picture.width > 1000
    assert (tmp_path / "heads_against.pdf").read_bytes().startswith(b"%PDF")


def test_one_run_a_side_is_described_and_nothing_is_tested(place, capsys, tmp_path):
    runs = [str(place / f"{name}0") for name in ("plain", "lapped")]
    words = ["heads", runs[0], "--against", runs[1], "--images", "16", "--output", str(tmp_path)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "1 run against 1 run, 16 images of test: described, not tested" in said
    assert ", p " not in said and "Welch" not in said
    numbers = json.loads((tmp_path / "heads_against.json").read_text())
    a, b = (numbers["intervals"][side]["output_variance, block 1"] for side in "ab")
    assert "differences" not in numbers and a["low"] is None
    line = next(each for each in said.splitlines() if each.startswith("  output_variance, block 1:"))
    assert line.endswith(f"{a['mean']:.3f}, {b['mean']:.3f} ({b['mean'] - a['mean']:+.3f})")


@pytest.mark.parametrize(
    "options",
    [[], ["--query", "3,4", "--block", "-1", "--plain"], ["--gradient", "3"], ["--rollout"]],
    ids=str,
)
def test_sheets_are_drawn(place, tmp_path, options):
    assert (
        main(["look", str(place / "lapped0"), str(place / "ramp.png"), "--output", str(tmp_path), *options])
        == 0
    )
    with Image.open(tmp_path / "ramp.lapped0.heads.png") as sheet:
        assert min(sheet.size) > 100 and len(np.unique(np.asarray(sheet.convert("L")))) > 20


def test_a_page_is_written(place, tmp_path, capsys, monkeypatch):
    page = tmp_path / "page.html"
    words = [str(place / "lapped0"), str(place / "ramp.png"), "--beside", str(place / "plain0")]
    assert main(["atlas", *words, "--output", str(page)]) == 0
    text = page.read_text()
    assert "Heads of lapped0 and plain0" in text and "http://" not in text.replace(
        "http://www.w3.org/2000/svg", ""
    )
    assert main(["atlas", *words, "--output", str(tmp_path)]) == 0
    assert (tmp_path / "atlas.html").read_text() == text
    monkeypatch.setattr(embedding, "block_size", lambda block: 30_000)
    assert main(["atlas", *words, "--output", str(page), "--limit-mb", "0.15"]) == 0
    assert "lapped0: 1 of 2 blocks fit the page's size: 1." in capsys.readouterr().out
    assert main(["atlas", *words, "--output", str(page), "--limit-mb", "0.01"]) == 2
    assert "not even one block of lapped0 fits the page" in capsys.readouterr().err


def test_any_timm_model_with_weights(place, tmp_path, capsys):
    name = "vit_tiny_patch16_224"
    weights = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(timm.create_model(name).state_dict(), weights)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (80, 60), "teal").save(pictures / "one.png")
    words = [name, "--weights", str(weights)]
    assert main(["heads", *words, "--pictures", str(pictures), "--output", str(tmp_path / "h.json")]) == 0
    assert len(json.loads((tmp_path / "h.json").read_text())["layers"]) == 12
    assert main(["look", *words, str(pictures), "--block", "3", "--output", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["look", "{run}", "nowhere.png"], "nowhere.png: no such file"),
        (["look", "{run}", "{ramp}", "--query", "90,4"], "is not in the picture of 8 x 8"),
        (["look", "{run}", "{ramp}", "--query", "up"], "expected cls, mean, a pixel"),
        (["look", "{run}", "{ramp}", "--query", "cls"], "sees no class token; ask for a pixel"),
        (["look", "{run}", "{ramp}", "--block", "9"], "no block 9; expected 0 to 1"),
        (["look", "{run}", "{ramp}", "--head", "5"], "no head 5 in block 0"),
        (["look", "{run}", "{ramp}", "--gradient", "zebra"], "no class 'zebra'"),
        (["look", "no_such_run", "{ramp}"], "neither the folder of a run or of a saved model"),
        (["look", "resnet10t", "{ramp}"], "resnet10t has no weights here"),
        (["heads", "{run}", "--images", "0"], "--images: expected at least 1"),
        (["heads", "{run}", "--split", "best"], "has no split 'best'"),
        (["heads", "{run}", "--pictures", "{folder}", "--masks"], "--masks"),
        (["heads", "vit_tiny_patch16_224"], "has no weights here"),
        (["atlas", "{run}"], "at least one picture"),
        (["atlas", "{run}", "{ramp}", "--output", "page"], "ends in .html"),
        (["atlas", "{run}", "{ramp}", "--limit-mb", "-1"], "--limit-mb: expected a size above 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_one_line(place, capsys, words, message):
    names = {"run": place / "lapped0", "ramp": place / "ramp.png", "folder": place}
    assert main([word.format(**names) for word in words]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1

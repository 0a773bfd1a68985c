"""``crosshead convert-attention``: a run's model and a named one, the folder that comes of it, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import crosshead
from crosshead.cli import main
from crosshead.conversion import of_run

MODEL = "plain_vit_micro_patch4_32"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Weights of a small model of timm's registry, and a dozen pictures."""
    import timm

    folder = tmp_path_factory.mktemp("conversion")
    torch.manual_seed(0)
    save_file(timm.create_model(MODEL).state_dict(), folder / "weights.safetensors")
    (folder / "pictures").mkdir()
    drawn = np.random.default_rng(0)
    for i in range(12):
        picture = drawn.integers(0, 256, (40, 40, 3)).astype("uint8")
        Image.fromarray(picture).save(folder / "pictures" / f"{i}.png")
    return folder


def test_a_run_is_converted_beside_its_controls(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(of_run, "_TIMED", 1)
    out = tmp_path / "linear"
    words = ["convert-attention", str(run), "--landmarks", "2", "--epochs", "0.05", "--lr", "1e-3", "--match"]
    assert main([*words, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for row in (
        "before",
        "swapped, untrained",
        "converted",
        "swapped, fine-tuned",
        "not swapped, trained on",
    ):
        assert row in said
    assert "8 x 8" in said and "32 x 32" in said and "says nothing of how another would come out" in said
    found = json.loads((out / "conversion.json").read_text())
    rows = {row["what"]: row for row in found["rows"]}
    assert found["match_steps"] == rows["converted"]["steps"] // 4 and found["images"] == "359 test images"
    spent = rows["converted"]["seconds"]
    for control in ("swapped, fine-tuned", "not swapped, trained on"):
        step = rows[control]["seconds"] / rows[control]["steps"]
        assert abs(rows[control]["seconds"] - spent) <= step
    model = crosshead.load(out)
    assert {each["kind"] for each in crosshead.swap.interactions_of(model)} == {"imhsa"}
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert "not empty; name another folder" in _fails(capsys, [*words, "--out", str(out)])


def test_a_model_is_converted_on_pictures_without_labels(place, tmp_path, capsys):
    words = ["convert-attention", MODEL, "--weights", str(place / "weights.safetensors"), "--landmarks", "2"]
    words += ["--pictures", str(place / "pictures"), "--steps", "2", "--attention-only", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "agreement on 2 held-out pictures" in said and "without labels" in said
    assert crosshead.load(tmp_path / "out")(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)


def _fails(capsys, words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected one run or model, got none"),
        ([MODEL], "needs pictures to be converted with: pass --pictures DIR"),
        ([MODEL, "--pictures", "x", "--epochs", "1"], "--epochs is of a run"),
        ([MODEL, "--pictures", "x", "--labels"], "--labels: pictures of a folder have none"),
        ([MODEL, "--pictures", "x", "--lr", "1e-3,1e-4"], "one rate is tried"),
        (["nothing", "--pictures", "x"], "neither the folder of a run nor a model of timm's"),
        ([MODEL, "--to", "talking", "--landmarks", "3"], "--landmarks is of imhsa, and --to is talking"),
    ],
)
def test_bad_words(fails, words, message):
    assert message in fails("convert-attention", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "3"], "--steps is of a model"),
        (["--lr", "fast"], "--lr: expected rates between 0 and 1"),
        (["--landmarks", "0"], "landmarks must be one or two counts of at least 1"),
        (["--to", "imhas"], "imhas"),
        (["--epochs", "0"], "expected a share of the training images above 0"),
    ],
)
def test_bad_words_of_a_run(fails, run, tmp_path, words, message):
    assert message in fails("convert-attention", run, "--out", tmp_path / "out", *words)


def test_too_few_pictures(place, tmp_path, fails):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    words = [MODEL, "--weights", place / "weights.safetensors", "--pictures", tmp_path]
    assert "at least 10 pictures" in fails("convert-attention", *words, "--out", tmp_path / "out")

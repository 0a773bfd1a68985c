"""heads, look and atlas of models of torchvision and transformers, and what theirs say of swapped ones."""

import json

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

import crosshead
from crosshead import restore_attention, swap_attention
from crosshead.cli import main
from test_swap_others import OURS, create, outputs

RENDERED = True  # pictures are looked at

PICTURED = [name for name in OURS if name not in ("EoMT", "TimmWrapper")]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "one.png")
    return folder / "one.png"


def processor(side=32):
    size = {"height": side, "width": side}
    return hf.ViTImageProcessor(size=size, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.2, 0.2])


def looked_at(word, picture, folder, *more):
    """What the three commands leave: the measures, a sheet and a page."""
    file = folder / "heads.json"
    given = [str(word), *more]
    assert main(["heads", *given, "--pictures", str(picture.parent), "--output", str(file)]) == 0
    assert main(["look", *given, str(picture), "--output", str(folder)]) == 0
    assert main(["atlas", *given, str(picture), "--output", str(folder / "atlas.html")]) == 0
    sheet = next(folder.glob("one.*.heads.png"))
    with Image.open(sheet) as drawn:
        assert drawn.width > 300
    page = (folder / "atlas.html").read_text()
    return json.loads(file.read_text())["layers"], page


@pytest.mark.parametrize("name", PICTURED)
def test_a_folder_of_save_pretrained_is_looked_into(name, picture, tmp_path):
    model = create(name)
    model.save_pretrained(tmp_path / "theirs")
    processor().save_pretrained(tmp_path / "theirs")
    layers, page = looked_at(tmp_path / "theirs", picture, tmp_path)
    assert layers and {layer["kind"] for layer in layers} == {"plain"}
    assert f"transformers' {type(model).__name__}" in page


@pytest.mark.parametrize("name", ["ViT", "DINOv2, registers", "DINOv3", "Swin v2", "TimmWrapper"])
def test_a_swapped_model_is_looked_into_from_where_it_was_saved(name, picture, tmp_path):
    model = create(name)
    swap_attention(model, overlap=2)
    crosshead.save(model, tmp_path / "ours", preparation={"mean": [0.5] * 3, "std": [0.5] * 3})
    layers, _ = looked_at(tmp_path / "ours", picture, tmp_path)
    assert layers and {layer["kind"] for layer in layers} == {"overlap"}


def test_classes_of_a_folder_are_told(picture, tmp_path):
    model = create("ViT")
    model.config.id2label = dict(enumerate(["ant", "bee", "cat", "dog", "elk"]))
    model.save_pretrained(tmp_path / "theirs")
    processor().save_pretrained(tmp_path / "theirs")
    _, page = looked_at(tmp_path / "theirs", picture, tmp_path)
    assert any(f"one.png ({name} at " in page for name in model.config.id2label.values())


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.soak) for each in ("swin_v2_t", "vit_b_32")]
)
def test_a_model_of_torchvision_by_name(name, picture, tmp_path):
    from torchvision.models import get_model

    torch.manual_seed(0)
    torch.save(get_model(name, weights=None).state_dict(), tmp_path / "weights.pth")
    more = ["--weights", str(tmp_path / "weights.pth")]
    for word in (name, f"torchvision/{name}"):
        assert main(["look", word, str(picture), *more, "--block", "1", "--output", str(tmp_path)]) == 0
    assert (
        main(["atlas", name, str(picture), *more, "--block", "1", "--output", str(tmp_path / "a.html")]) == 0
    )
    page = (tmp_path / "a.html").read_text()
    assert "torchvision's, with weights of a file" in page and " at " in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "processor.save_pretrained"),
        (lambda folder: renamed(folder, "os.system"), "has no model 'os.system'"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "transformers can't load"),
        (lambda folder: (folder / "config.json").write_text("{}"), "names no model"),
    ],
)
def test_folders_that_are_not_whole(change, message, picture, tmp_path, capsys):
    create("ViT").save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    change(tmp_path)
    capsys.readouterr()
    assert main(["look", str(tmp_path), str(picture), "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def renamed(folder, name):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [name]}))


def test_a_saved_model_that_does_not_say_how_pictures_are_prepared(picture, tmp_path, capsys):
    crosshead.save(create("ViT"), tmp_path)
    assert main(["look", str(tmp_path), str(picture), "--output", str(tmp_path)]) == 2
    assert "preparation=" in capsys.readouterr().err
    processor().save_pretrained(tmp_path)
    assert main(["look", str(tmp_path), str(picture), "--output", str(tmp_path)]) == 0


@pytest.mark.parametrize("name", OURS)
def test_swapped_models_in_the_words_of_transformers(name, tmp_path):
    """save_pretrained is refused with what to call, from_pretrained reads nothing of ours, undone all is as before."""
    model = create(name)
    want = outputs(model)
    swap_attention(model, overlap=2)
    with pytest.raises(ValueError, match=r"crosshead\.save"):
        model.save_pretrained(tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()
    crosshead.save(model, tmp_path / "ours")
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        type(model).from_pretrained(tmp_path / "ours")
    restore_attention(model)
    model.save_pretrained(tmp_path / "theirs")
    again = type(model).from_pretrained(tmp_path / "theirs").eval()
    assert torch.equal(outputs(again), want)

"""``crosshead convert``: a checkpoint of the authors' code becomes weights that a recipe can start from."""

import pytest
import timm
import torch
from PIL import Image

from crosshead.cli import main
from crosshead.cli.commands.convert import model_section
from crosshead.models import build_model, load_authors_checkpoint, load_weights
from crosshead.recipe import load_recipe
from crosshead.recipe.schema import ModelConfig
from crosshead.recipe.yaml import write_document
from golden_files import load_golden
from tolerances import GOLDEN_OUTPUT, assert_close


def authors_file(folder, model="vit_model"):
    _, file = load_golden(model)
    state = {key.removeprefix("state."): value for key, value in file.items() if key.startswith("state.")}
    path = folder / "ckpt_epoch_99.pth"
    torch.save({"model": state, "epoch": 99}, path)
    return path, file


@pytest.mark.parametrize("model", ["vit_model", "cait_model"])
def test_the_converted_model_computes_what_the_authors_did(tmp_path, capsys, model):
    path, file = authors_file(tmp_path, model)
    assert main(["convert", str(path)]) == 0
    recipe_file = tmp_path / "start.yaml"
    recipe_file.write_text(capsys.readouterr().out)
    recipe = load_recipe(recipe_file)
    assert recipe.model.init_from == str(path.with_suffix(".safetensors"))
    size, classes = file["x"].shape[-1], file["logits"].shape[-1]
    model = build_model(recipe.model, num_classes=classes, img_size=size).eval()
    with torch.inference_mode():
        assert_close(model(file["x"]), file["logits"], GOLDEN_OUTPUT[torch.float32])


@pytest.mark.parametrize("model", ["vit_model", "cait_model"])
def test_a_recipe_starts_from_their_file_as_it_is(tmp_path, model):
    path, file = authors_file(tmp_path, model)
    theirs = load_authors_checkpoint(path)
    section = ModelConfig(**model_section(theirs.name, theirs.args, path))
    size, classes = file["x"].shape[-1], file["logits"].shape[-1]
    model = build_model(section, num_classes=classes, img_size=size).eval()
    with torch.inference_mode():
        assert_close(model(file["x"]), file["logits"], GOLDEN_OUTPUT[torch.float32])


def test_their_cait_in_a_cait_of_timms_form(tmp_path):
    path, _ = authors_file(tmp_path, "cait_model")
    theirs = load_authors_checkpoint(path)
    model = timm.create_model(theirs.name, **theirs.args | {"form": "timm"})
    with pytest.raises(ValueError, match=r"another model.*`crosshead convert .*` prints the model section"):
        load_weights(model, path)


def test_their_cait_is_evaluated_as_it_is(tmp_path, capsys):
    """``--eval`` of their .pth, by ``--resume`` and by ``--pretrained``: the accuracy and loss of their model."""
    path, _ = authors_file(tmp_path, "cait_model")
    pictures = torch.randint(256, (7, 2, 32, 32, 3), dtype=torch.uint8)
    for label, of_class in enumerate(pictures):
        for split, picture in zip(("train", "val"), of_class, strict=True):
            (folder := tmp_path / "data" / split / f"class{label}").mkdir(parents=True)
            Image.fromarray(picture.numpy()).save(folder / "picture.png")
    theirs = load_authors_checkpoint(path)
    section = model_section(theirs.name, theirs.args, path) | {"init_from": None}
    data = dict(name="folder", root=str(tmp_path / "data"), image_size=32, mean=[0.5] * 3, std=[0.5] * 3)
    (tmp_path / "cait.yaml").write_text(write_document({"model": section, "data": data}))

    with torch.inference_mode():
        logits = theirs.model(pictures[:, 1].permute(0, 3, 1, 2) / 127.5 - 1)
    labels = torch.arange(7)
    accuracy = (logits.argmax(1) == labels).float().mean()
    loss = torch.nn.functional.cross_entropy(logits, labels)
    for option in ("--resume", "--pretrained"):
        capsys.readouterr()
        words = ["--cfg", str(tmp_path / "cait.yaml"), "--eval", option, str(path), "train.device=cpu"]
        assert main(["train", *words]) == 0
        said = capsys.readouterr().out
        assert f"accuracy {accuracy:.2%}" in said and f"loss {loss:.4f} (7 images" in said


def test_what_is_there_is_not_replaced_unasked(tmp_path, fails):
    path, _ = authors_file(tmp_path)
    assert main(["convert", str(path), str(tmp_path / "out.safetensors")]) == 0
    assert "is there already" in fails("convert", path, tmp_path / "out.safetensors")
    assert main(["convert", str(path), str(tmp_path / "out.safetensors"), "--force"]) == 0


def test_the_input_is_never_the_output(tmp_path, fails):
    path, _ = authors_file(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"weights")
    assert "is safetensors already" in fails("convert", tmp_path / "x.safetensors", "--force")
    assert "is the checkpoint itself" in fails("convert", path, path, "--force")
    assert (tmp_path / "x.safetensors").read_bytes() == b"weights" and path.stat().st_size > 100


def test_other_files_are_refused(tmp_path, fails):
    assert "no such file" in fails("convert", tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    assert "text.pth" in fails("convert", tmp_path / "text.pth")
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "other.pth")
    assert "not a checkpoint of the authors' code" in fails("convert", tmp_path / "other.pth")

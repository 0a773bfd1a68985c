"""``crosshead convert``: a checkpoint of the authors' code becomes weights that a recipe can start from."""

import torch

from crosshead.cli import main
from crosshead.cli.commands.convert import model_section
from crosshead.models import build_model, load_authors_checkpoint
from crosshead.recipe import load_recipe
from crosshead.recipe.schema import ModelConfig
from golden_files import load_golden
from tolerances import GOLDEN_OUTPUT, assert_close


def authors_file(folder):
    _, file = load_golden("vit_model")
    state = {key.removeprefix("state."): value for key, value in file.items() if key.startswith("state.")}
    path = folder / "ckpt_epoch_99.pth"
    torch.save({"model": state, "epoch": 99}, path)
    return path, file


def test_the_converted_model_computes_what_the_authors_did(tmp_path, capsys):
    path, file = authors_file(tmp_path)
    assert main(["convert", str(path)]) == 0
    recipe_file = tmp_path / "start.yaml"
    recipe_file.write_text(capsys.readouterr().out)
    recipe = load_recipe(recipe_file)
    assert recipe.model.init_from == str(path.with_suffix(".safetensors"))
    size, classes = file["x"].shape[-1], file["logits"].shape[-1]
    model = build_model(recipe.model, num_classes=classes, img_size=size).eval()
    with torch.inference_mode():
        assert_close(model(file["x"]), file["logits"], GOLDEN_OUTPUT[torch.float32])


def test_a_recipe_starts_from_their_file_as_it_is(tmp_path):
    path, file = authors_file(tmp_path)
    theirs = load_authors_checkpoint(path)
    section = ModelConfig(**model_section(theirs.name, theirs.args, path))
    size, classes = file["x"].shape[-1], file["logits"].shape[-1]
    model = build_model(section, num_classes=classes, img_size=size).eval()
    with torch.inference_mode():
        assert_close(model(file["x"]), file["logits"], GOLDEN_OUTPUT[torch.float32])


def test_what_is_there_is_not_replaced_unasked(tmp_path, fails):
    path, _ = authors_file(tmp_path)
    assert main(["convert", str(path), str(tmp_path / "out.safetensors")]) == 0
    assert "is there already" in fails("convert", path, tmp_path / "out.safetensors")
    assert main(["convert", str(path), str(tmp_path / "out.safetensors"), "--force"]) == 0


def test_other_files_are_refused(tmp_path, fails):
    assert "no such file" in fails("convert", tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    assert "text.pth" in fails("convert", tmp_path / "text.pth")
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "other.pth")
    assert "not a checkpoint of the authors' code" in fails("convert", tmp_path / "other.pth")

"""Fine-tuning: what weights say of pictures is used and recorded, and the swap keeps what they know."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from crosshead.models import build_model
from crosshead.recipe import load_recipe
from crosshead.train import evaluate_run, load_run, train
from crosshead.train.resolve import resolve
from data.odd_files import write_class_folders

SMALL = {"depth": 2, "embed_dim": 16, "num_heads": 2, "patch_size": 8}
CONFIG = {"mean": [0.1, 0.2, 0.3], "std": [0.3, 0.2, 0.1], "interpolation": "bilinear", "crop_pct": 0.8}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder as timm writes them for a hub, of a small ViT for 32 pixels and seven classes."""
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **SMALL, img_size=32, num_classes=7)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {**CONFIG, "input_size": [3, 32, 32]}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    root = tmp_path_factory.mktemp("pets")
    write_class_folders(root, {"cat": 10, "dog": 10})
    return root


def finetune(pets, first, *more):
    words = [f"data.root={pets}", f"model.init_from={first}", "train.epochs=1", "data.batch_size=8"]
    values = {"model.args": SMALL, "train.device": "cpu", "log.tensorboard": False}
    return load_recipe("finetune", [*words, *more], values)


def test_what_the_weights_say_of_pictures_is_used_where_the_recipe_is_silent(hub, pets):
    data = resolve(finetune(pets, hub)).data
    assert (data.mean, data.std) == (CONFIG["mean"], CONFIG["std"])
    assert (data.image_size, data.eval_resize, data.interpolation) == (32, 40, "bilinear")
    data = resolve(finetune(pets, hub, "task.name=multilabel")).data
    assert (data.image_size, data.eval_resize) == (32, 40)  # of every task whose pictures are cut to one size
    data = resolve(finetune(pets, hub, "task.name=segment", "model.segmenter.name=linear")).data
    assert data.image_size is None and data.eval_resize is None
    data = resolve(finetune(pets, hub, "data.image_size=48", "data.interpolation=bicubic")).data
    assert (data.image_size, data.eval_resize, data.interpolation) == (48, 60, "bicubic")
    data = resolve(finetune(pets, hub, "data.mean=[0.5,0.5,0.5]")).data
    assert (data.mean, data.std, data.image_size) == ([0.5, 0.5, 0.5], None, 32)
    grey = resolve(finetune(pets, hub, "data.channels=1")).data
    assert grey.mean == pytest.approx([0.2])
    named = finetune(pets, hub)
    fetched = named.model_copy(
        update={"model": named.model.model_copy(update={"init_from": None, "args": {"pretrained": True}})}
    )
    data = resolve(fetched).data
    assert (data.mean, data.image_size, data.eval_resize) == ([0.5] * 3, 224, 248)


def test_two_commands_lead_from_weights_to_a_swapped_model_and_on(hub, pets, tmp_path):
    first = finetune(pets, hub)
    result = train(first, folder=tmp_path / "first")
    assert result.status == "finished"
    info = json.loads((tmp_path / "first" / "classes.json").read_text())
    assert info["mean"] == CONFIG["mean"]
    recorded = load_recipe(tmp_path / "first" / "recipe.yaml")
    assert resolve(recorded) == recorded
    assert evaluate_run(tmp_path / "first")["count"] == 4
    # From a run: its weights have the swap in them, and its pictures were prepared alike.
    second = finetune(pets, tmp_path / "first", "train.freeze=['blocks.*']", "optimizer.lr=1e-9")
    assert resolve(second).data.mean == CONFIG["mean"] and resolve(second).data.eval_resize == 40
    train(second, folder=tmp_path / "second")
    before, after = (
        load_run(tmp_path / name, checkpoint="last").model.state_dict() for name in ("first", "second")
    )
    best = load_run(tmp_path / "first").model.state_dict()
    assert any("gain" in name or "attn" in name for name in before)
    assert all(after[name].equal(best[name]) for name in best if name.startswith("blocks."))


def test_the_outputs_are_those_of_the_weights_before_the_first_step(hub, pets):
    recipe = resolve(finetune(pets, hub))
    torch.manual_seed(1)
    swapped = build_model(recipe.model, num_classes=7, img_size=32).eval()
    plain = timm.create_model("vit_tiny_patch16_224", **SMALL, img_size=32, num_classes=7).eval()
    plain.load_state_dict(load_file(hub / "model.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert_close(swapped(images), plain(images), atol=1e-5, rtol=1e-5)


def test_weights_are_adapted_to_other_sizes_and_channels(hub, pets):
    recipe = resolve(finetune(pets, hub, "data.image_size=48"))
    model = build_model(recipe.model, num_classes=3, in_chans=1, img_size=48)
    assert model.pos_embed.shape[1] == 1 + 36 and model.patch_embed.proj.weight.shape[1] == 1
    weights = load_file(hub / "model.safetensors")
    assert model.blocks[0].mlp.fc1.weight.equal(weights["blocks.0.mlp.fc1.weight"])
    assert_close(model.patch_embed.proj.weight[:, 0], weights["patch_embed.proj.weight"].sum(1))


def test_a_state_as_timm_pickles_it_is_read(hub, pets, tmp_path):
    state = load_file(hub / "model.safetensors")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "timm.pth")
    recipe = resolve(finetune(pets, tmp_path / "timm.pth"))
    assert recipe.data.mean == [0.5] * 3, "of timm's model, where nothing lies beside the file"
    model = build_model(recipe.model, num_classes=7, img_size=32)
    assert model.head.weight.equal(state["head.weight"])


def test_what_presumes_weights_is_refused_without(pets, tmp_path):
    recipe = load_recipe("finetune", [f"data.root={pets}", "data.image_size=32", "data.batch_size=8"])
    with pytest.raises(ValueError, match=r"optimizer.layer_decay and optimizer.head_lr presume weights"):
        train(recipe, folder=tmp_path / "run")
    with pytest.raises(ValueError, match="no weights in this folder"):
        train(finetune(pets, tmp_path), folder=tmp_path / "other")

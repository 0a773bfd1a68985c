"""Initial tensors keyed on (seed, name), and what a run records of its design."""

import json

import timm
import torch
from runs import tiny_recipe

from crosshead import swap_attention
from crosshead.train import train
from crosshead.train.loop.model import build_paired
from crosshead.train.run_folder.design import read_design, tensor_digests


def vit(mlp_ratio=2.0, kind=None):
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, mlp_ratio=mlp_ratio,
        num_classes=3,
    )  # fmt: skip
    if kind is not None:
        swap_attention(model, kind, init="paper")
    return model


def alike(one, other):
    first, second = tensor_digests(one), tensor_digests(other)
    return {name for name in first.keys() & second.keys() if first[name] == second[name]}


def test_a_wider_mlp_leaves_all_other_tensors_as_they_are():
    plain, wide = (build_paired(lambda r=r: vit(r), 0) for r in (2.0, 3.0))
    names = {name for name, _ in plain.named_parameters()}
    assert names - alike(plain, wide) == {f"blocks.{b}.mlp.fc{i}.weight" for b in (0, 1) for i in (1, 2)} | {
        f"blocks.{b}.mlp.fc1.bias" for b in (0, 1)
    }
    # Drawn in sequence, nothing random behind the first MLP agrees.
    torch.manual_seed(0)
    first = vit(2.0)
    torch.manual_seed(0)
    assert "blocks.1.attn.qkv.weight" not in alike(first, vit(3.0))


def test_an_interaction_shares_what_has_its_shape_and_seeds_differ():
    plain, talking = build_paired(vit, 0), build_paired(lambda: vit(kind="talking"), 0)
    assert alike(plain, talking) == {name for name, _ in plain.named_parameters()}
    other = build_paired(vit, 1)
    assert "blocks.0.attn.qkv.weight" not in alike(plain, other)
    assert not torch.equal(plain.blocks[0].attn.qkv.weight, plain.blocks[1].attn.qkv.weight)


def test_parts_of_one_tensor_are_not_drawn_alike():
    class Fused(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.empty(4, 4))
            with torch.no_grad():
                for part in self.weight.chunk(2):
                    part.normal_()

    first, second = build_paired(Fused, 0).weight.chunk(2)
    assert not torch.equal(first, second)


def test_a_run_records_its_design(tmp_path):
    changes = {"train": {"epochs": 1, "paired_init": True}, "schedule": {"warmup_epochs": 0.0}}
    folders = {}
    for name, ratio, seed in (("plain", 4.0, 0), ("wide", 5.0, 0), ("other", 4.0, 1)):
        changes["train"]["seed"] = seed
        recipe = tiny_recipe(**changes)
        args = recipe.model.args | {"mlp_ratio": ratio}
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"args": args})})
        folders[name] = train(recipe, folder=tmp_path / name).folder
    plain, wide, other = (read_design(folder) for folder in folders.values())
    assert plain["seed"] == 0 and plain["order"] == wide["order"] != other["order"]
    assert plain["test"] == wide["test"] and plain["test"]["count"] == 359
    shared = [name for name, digest in plain["tensors"].items() if wide["tensors"][name] == digest]
    assert len(shared) == len(plain["tensors"]) - 2 * 3
    assert read_design(tmp_path) is None
    json.dumps(plain, allow_nan=False)

"""Checkpoints as people have them: wrappers, prefixes, others' names, things beside the weights; nothing is run."""

import argparse
import functools
import logging
import pathlib
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from crosshead.models import load_authors_checkpoint, load_weights

TINY = dict(img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=2)
VIT = "vit_tiny_patch16_224"


def vit(seed=0, classes=5, name=VIT, **args):
    torch.manual_seed(seed)
    return timm.create_model(name, num_classes=classes, **TINY | args).eval()


def state(seed=0):
    return vit(seed, classes=7).state_dict()


def prefixed(prefix, seed=0):
    return {prefix + name: tensor for name, tensor in state(seed).items()}


@functools.cache
def pickled_kinds():
    other = state(1)
    return {
        "bare": state(),
        "module": {"state_dict": prefixed("module.")},
        "compiled": {"state_dict": prefixed("_orig_mod.")},
        "both": {"model": prefixed("module._orig_mod.")},
        "the other way": {"model": prefixed("_orig_mod.module.")},
        "a block compiled": {k.replace("blocks.0.", "blocks.0._orig_mod."): v for k, v in state().items()},
        "arguments": {"model": state(), "optimizer": {}, "epoch": 3, "args": argparse.Namespace(lr=1.0)},
        "settings": {"model": state(), "args": defaultdict(list, a=[1]), "path": pathlib.PurePosixPath("a")},
        "lightning": {"state_dict": prefixed("model."), "epoch": 3, "pytorch-lightning_version": "2.5"},
        "average": {"state_dict": other, "state_dict_ema": state()},
        "average, wrapped": {"model": other, "model_ema": prefixed("module.")},
        "no average": {"model": state(), "model_ema": None},
        "dino": {
            "teacher": prefixed("backbone."),
            "student": prefixed("module.backbone.", 1),
            "args": argparse.Namespace(),
        },
        "student and teacher in one": prefixed("teacher.backbone.") | prefixed("student.backbone.", 1),
        "swa": {**prefixed("module."), "n_averaged": torch.tensor(3)},
        "numpy": {name: tensor.numpy() for name, tensor in state().items()},
        "numpy by columns": {name: np.asfortranarray(tensor.numpy()) for name, tensor in state().items()},
        "numpy scalar": {"state_dict": state(), "best": np.float64(3), "more": torch.tensor(3.0).numpy()},
        "whole model": vit(0, 7),
        "whole model, wrapped": {"ema": nn.DataParallel(vit(0, 7)), "epoch": 1},
        **{key: {key: state()} for key in ("params", "net", "model_state_dict", "model_state", "weights")},
        "deep": {"checkpoint": {"model": {"encoder": prefixed("net.")}}},
        "masked autoencoder": {
            "model": state() | {"mask_token": torch.zeros(1), "decoder_embed.bias": torch.ones(1)}
        },
        "optimizer beside": {"model": state(), "optimizer": {"exp_avg": state(1)}},
        "twice the same": {"model": state(), "net": state()},
        "another head": {name.replace("head.", "head.mlp."): tensor for name, tensor in state().items()},
        "no head": {name: tensor for name, tensor in state().items() if not name.startswith("head.")},
    }


KINDS = list(pickled_kinds())


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickled_checkpoint(kind, tmp_path):
    torch.save(pickled_kinds()[kind], tmp_path / "weights.pth.tar")
    check(tmp_path / "weights.pth.tar")


@pytest.mark.parametrize(
    "kind", ["bare", "arguments", "settings", "dino", "numpy", "numpy scalar", "optimizer beside"]
)
def test_a_checkpoint_of_an_old_pytorch(kind, tmp_path):
    torch.save(pickled_kinds()[kind], tmp_path / "weights.ckpt", _use_new_zipfile_serialization=False)
    check(tmp_path / "weights.ckpt")


FLAT = ["bare", "a block compiled", "student and teacher in one", "swa", "no head"]


@pytest.mark.parametrize(
    "kind", [*FLAT, *(f"{p}*" for p in ("module.", "_orig_mod.", "model.", "backbone.", "encoder."))]
)
def test_a_safetensors_file(kind, tmp_path):
    tensors = prefixed(kind[:-1]) if kind.endswith("*") else pickled_kinds()[kind]
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    check(tmp_path / "model.safetensors")
    check(tmp_path)


def check(path):
    """The features of the one that was saved, whatever the classifier."""
    model, pictures = vit(9), torch.randn(2, 3, 16, 16)
    load_weights(model, path)
    assert torch.equal(model.forward_features(pictures), vit(0, 7).forward_features(pictures))


def transformers_names(kind):
    """A ViT of 2 blocks as Hugging Face names it, and the model of timm's that it is."""
    if kind == "vit":
        model = vit(classes=7)
    else:
        model = vit(
            classes=0, init_values=1e-5, **(dict(reg_tokens=4, no_embed_class=True) if "reg" in kind else {})
        )
        nn.init.normal_(model.blocks[0].ls1.gamma)
    own = model.state_dict()
    names = {
        "embeddings.cls_token": own["cls_token"],
        "embeddings.position_embeddings": own["pos_embed"],
        "embeddings.mask_token": torch.zeros(1, 24),
        **both(own, "embeddings.patch_embeddings.projection", "patch_embed.proj"),
        **both(own, "layernorm", "norm"),
    }
    if kind == "dinov2 with registers":
        token = own["cls_token"] / 2  # its position is added to it
        names["embeddings.cls_token"] = token
        names["embeddings.position_embeddings"] = torch.cat([token, own["pos_embed"]], 1)
        names["embeddings.register_tokens"] = own["reg_token"]
    for b in range(2):
        block = f"encoder.layer.{b}"
        for part in ("weight", "bias"):
            three = own[f"blocks.{b}.attn.qkv.{part}"].chunk(3)
            for name, tensor in zip(("query", "key", "value"), three, strict=True):
                names[f"{block}.attention.attention.{name}.{part}"] = tensor
        names |= both(own, f"{block}.attention.output.dense", f"blocks.{b}.attn.proj")
        pairs = {
            "vit": ("layernorm_before", "layernorm_after", "intermediate.dense", "output.dense"),
        }.get(kind, ("norm1", "norm2", "mlp.fc1", "mlp.fc2"))
        for theirs, ours in zip(pairs, ("norm1", "norm2", "mlp.fc1", "mlp.fc2"), strict=True):
            names |= both(own, f"{block}.{theirs}", f"blocks.{b}.{ours}")
        if kind != "vit":
            for n in "12":
                names[f"{block}.layer_scale{n}.lambda1"] = own[f"blocks.{b}.ls{n}.gamma"]
    if kind == "vit":
        names = {f"vit.{name}": tensor for name, tensor in names.items()} | both(own, "classifier", "head")
        names |= {"vit.pooler.dense.weight": torch.ones(2, 2)}
    return model, names


def both(own, theirs, ours):
    return {f"{theirs}.{part}": own[f"{ours}.{part}"] for part in ("weight", "bias")}


@pytest.mark.parametrize("kind", ["vit", "dinov2", "dinov2 with registers"])
@pytest.mark.parametrize("new_classifier", [True, False])
def test_hugging_faces_names(kind, new_classifier, tmp_path):
    model, names = transformers_names(kind)
    save_file({name: tensor.clone() for name, tensor in names.items()}, tmp_path / "model.safetensors")
    torch.manual_seed(9)
    args = {} if kind == "vit" else dict(init_values=1.0)
    args |= dict(reg_tokens=4, no_embed_class=True) if "reg" in kind else {}
    other = timm.create_model(VIT, num_classes=7 if kind == "vit" else 0, **TINY | args).eval()
    load_weights(other, tmp_path, new_classifier=new_classifier)
    pictures = torch.randn(2, 3, 16, 16)
    assert torch.allclose(other(pictures), model(pictures), rtol=1e-5, atol=1e-5)


def test_what_was_taken_is_said(tmp_path, caplog):
    torch.save({"state_dict": state(1), "state_dict_ema": prefixed("module.")}, tmp_path / "a.pth")
    with caplog.at_level(logging.WARNING):
        assert load_weights(vit(9), tmp_path / "a.pth") == "state_dict_ema"
    assert "under state_dict_ema are taken; left out are those under state_dict" in caplog.text
    torch.save({"state_dict": prefixed("net.")}, tmp_path / "b.pth")
    assert load_weights(vit(9), tmp_path / "b.pth") == "state_dict net.*"


def test_two_that_fit_alike_are_refused_by_name(tmp_path):
    torch.save({"one": state(0), "two": prefixed("net.", 1)}, tmp_path / "a.pth")
    model = vit(9)
    with pytest.raises(
        ValueError, match=r"several sets of weights that fit: under one and under two net\.\*; save"
    ):
        load_weights(model, tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            {"epoch": 1, "note": [1]},
            r"no weights in it; expected tensors by name, found the keys epoch \(int\), note \(list\)",
        ),
        ({"a": argparse.Namespace(b=1)}, r"found the keys a \(argparse.Namespace, which is not loaded"),
        ([1, 2], "found a list"),
        (
            {"state_dict": {"conv1.weight": torch.ones(3)}},
            r"0 of the model's \d+ names among 1 tensors.*conv1\.weight",
        ),
        (
            {"model": vit(depth=3).state_dict()},
            r"blocks.2.norm1.weight is not in the model.*under model \d+ of",
        ),
        ({"model": vit(depth=1).state_dict()}, r"blocks.1.norm1.weight is missing"),
    ],
)
def test_what_does_not_fit_is_told_by_what_was_found(content, found, tmp_path):
    torch.save(content, tmp_path / "weights.pth.tar")
    model = vit(9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=found):
        load_weights(model, tmp_path / "weights.pth.tar")
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "but empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"\x80\x02X\x01", "can be read without running code"),
        (b"PK\x03\x04 and no more", "can be read without running code"),
        (b"\x10\0\0\0\0\0\0\0{ no header", "not a readable safetensors file"),
        (b"something else", "one that begins with"),
    ],
)
def test_files_that_are_something_else(content, words, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load_weights(vit(), tmp_path / "a.pth")


class Hostile:
    def __init__(self, target, *args):
        self.call = target, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("read", [lambda path: load_weights(vit(), path), load_authors_checkpoint])
def test_nothing_in_a_file_is_run(read, zipped, tmp_path):
    import builtins
    import os

    mark = tmp_path / "created"
    for target, args in (
        (open, (str(mark), "w")),
        (os.system, (f"touch {mark}",)),
        (builtins.exec, (f"open({str(mark)!r}, 'w')",)),
        (os.mkdir, (str(mark),)),
    ):
        torch.save(
            {"model": Hostile(target, *args)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped
        )
        with pytest.raises(ValueError, match="without running code"):
            read(tmp_path / "a.pth")
        assert not mark.exists()


def test_weights_beside_something_hostile_are_read_and_it_is_not_run(tmp_path):
    hostile = Hostile(open, str(tmp_path / "created"), "w")
    torch.save(OrderedDict(model=state(), args=hostile), tmp_path / "a.pth")
    check(tmp_path / "a.pth")
    assert not (tmp_path / "created").exists()


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    model = nn.Linear(2, 2)
    tensors = model.state_dict() | {"bias": torch.tensor([0.0, float("nan")])}
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"1 of the 2 tensors hold NaN, bias for one.*earlier checkpoint"):
        load_weights(model, tmp_path / "w.safetensors")

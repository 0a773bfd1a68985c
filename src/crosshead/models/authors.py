"""Checkpoints of the MOHSA authors' code, read into this library's models.

Their files hold neither the schedule nor, in ViT, the number of heads. Both follow from the widths: the projection of
block b has h·(d + 2·o_b) inputs, and under each of the paper's schedules the overlap moves by 1 somewhere, so that the
smallest step between two blocks is 2h.
"""

import itertools
import math
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

State = dict[str, Tensor]


@dataclass(frozen=True)
class AuthorsCheckpoint:
    """A model with its weights, and what ``timm.create_model(name, **args)`` needs to build it again."""

    model: nn.Module
    name: str
    args: dict[str, Any]


def load_authors_checkpoint(
    path: str | os.PathLike[str], *, num_heads: int | None = None
) -> AuthorsCheckpoint:
    """Reads a checkpoint (.pth or .pt) of the authors' ViT or Swin; nothing in the file is run.

    A Swin checkpoint tells its image size by the shift masks in it; without them the model takes 224 pixels, until
    its ``set_input_size`` is called.

    Args:
        path: the file, as their training writes it (weights under ``model``) or a bare state dict.
        num_heads: heads of the model; found from the weights unless given. Give it for a ViT whose blocks all overlap
            alike.

    Raises:
        ValueError: where the file can't be read, is of another model, or its heads can't be told.
    """
    return from_authors_state(_read_state(path), num_heads=num_heads)


def from_authors_state(state: State, *, num_heads: int | None = None) -> AuthorsCheckpoint:
    """As ``load_authors_checkpoint``, from a state dict under the authors' names."""
    for marker, convert in CONVERTERS.items():
        if marker in state:
            name, args, weights = convert(state, num_heads)
            model = timm.create_model(name, **args)
            model.load_state_dict(weights)
            return AuthorsCheckpoint(model.eval(), name, args)
    shown = ", ".join(sorted(state)[:4])
    raise ValueError(
        f"not a checkpoint of the authors' code: wanted a tensor named {' or '.join(CONVERTERS)}, got {shown}, ..."
    )


def _read_state(path: str | os.PathLike[str]) -> State:
    try:
        # Their training code stores its configuration beside the weights; a plain dictionary stands in for its class.
        with torch.serialization.safe_globals([(OrderedDict, "yacs.config.CfgNode")]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path}: not a checkpoint that can be read without running code from it ({reason}); save its state dict "
            "alone, with torch.save(model.state_dict(), PATH)"
        ) from error
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path}: wanted a state dict, alone or under 'model', got {type(state).__name__}")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def overlaps_from_widths(inner: int, inputs: list[int], num_heads: int | None) -> tuple[int, list[int]]:
    """The number of heads, and the overlap of each block, from the projections' inputs.

    Args:
        inner: h·d, the width of all heads before they overlap.
        inputs: h·(d + 2·o_b) of each block.
        num_heads: h, where it is known.
    """
    extra = [width - inner for width in inputs]
    if num_heads is None:
        steps = [abs(b - a) for a, b in itertools.pairwise(extra) if a != b]
        if not steps:
            raise ValueError(
                "the number of heads can't be told from this checkpoint, whose blocks all overlap alike; give it "
                "with num_heads (--num-heads on the command line)"
            )
        num_heads = min(steps) // 2
    if num_heads < 1 or inner % num_heads or any(e < 0 or e % (2 * num_heads) for e in extra):
        raise ValueError(
            f"{num_heads} heads don't fit this checkpoint: heads of {inner} channels in all, and projections of "
            f"{inputs} inputs; give the number of heads that it was trained with"
        )
    return num_heads, [e // (2 * num_heads) for e in extra]


def _convert_vit(state: State, num_heads: int | None) -> tuple[str, dict[str, Any], State]:
    depth = 1 + max(int(match[1]) for n in state if (match := re.match(r"transformer\.layers\.(\d+)\.", n)))
    dim, patch_area = state["to_patch_embedding.1.weight"].shape
    channels = 3
    patch = math.isqrt(patch_area // channels)
    blocks = [f"transformer.layers.{b}" for b in range(depth)]
    inner = state[f"{blocks[0]}.0.fn.to_qkv.weight"].shape[0] // 3
    inputs = [state[f"{block}.0.fn.to_out.0.weight"].shape[1] for block in blocks]
    heads, overlaps = overlaps_from_widths(inner, inputs, num_heads)
    if inner != dim:
        raise ValueError(f"heads of {inner} channels in all in a model of width {dim} are not supported")
    hidden = state[f"{blocks[0]}.1.fn.net.0.weight"].shape[0]
    args = dict(
        img_size=patch * math.isqrt(state["pos_embedding"].shape[1] - 1),
        patch_size=patch,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        mlp_ratio=hidden / dim,
        num_classes=state["mlp_head.1.weight"].shape[0],
        overlap=overlaps,
        norm_eps=1e-5,
    )
    weights = {
        "cls_token": state["cls_token"],
        "pos_embed": state["pos_embedding"],
        # Their patches are flattened pixel by pixel with the channels last.
        "patch_embed.proj.weight": state["to_patch_embedding.1.weight"]
        .view(dim, patch, patch, channels)
        .permute(0, 3, 1, 2),
        "patch_embed.proj.bias": state["to_patch_embedding.1.bias"],
    }
    pairs = {"norm": "mlp_head.0", "head": "mlp_head.1"}
    for b, block in enumerate(blocks):
        pairs[f"blocks.{b}.norm1"] = f"{block}.0.norm"
        pairs[f"blocks.{b}.attn.proj"] = f"{block}.0.fn.to_out.0"
        pairs[f"blocks.{b}.norm2"] = f"{block}.1.norm"
        pairs[f"blocks.{b}.mlp.fc1"] = f"{block}.1.fn.net.0"
        pairs[f"blocks.{b}.mlp.fc2"] = f"{block}.1.fn.net.3"
        weights[f"blocks.{b}.attn.qkv.weight"] = state[f"{block}.0.fn.to_qkv.weight"]
    for ours, theirs in pairs.items():
        weights |= {f"{ours}.{part}": state[f"{theirs}.{part}"] for part in ("weight", "bias")}
    return "mohsa_vit_tiny_patch16_224", args, weights


def _convert_swin(state: State, num_heads: int | None) -> tuple[str, dict[str, Any], State]:
    """Microsoft's names, which timm keeps but for the place of the downsampling and the name of the classifier."""
    if "absolute_pos_embed" in state:
        raise ValueError("a Swin with an absolute position embedding (APE: True) has no counterpart in timm")
    found = (re.match(r"layers\.(\d+)\.blocks\.(\d+)\.attn\.proj\.weight", name) for name in state)
    blocks = sorted((int(match[1]), int(match[2])) for match in found if match)
    depths = [sum(stage == s for s, _ in blocks) for stage in range(1 + blocks[-1][0])]
    attn = {block: "layers.{}.blocks.{}.attn".format(*block) for block in blocks}
    heads = [state[f"{attn[s, 0]}.relative_position_bias_table"].shape[1] for s in range(len(depths))]
    if num_heads is not None and num_heads != heads[0]:
        raise ValueError(
            f"this checkpoint's first stage has {heads[0]} heads, not {num_heads}; leave num_heads out"
        )
    overlaps = []
    for block, name in attn.items():
        dim, inputs = state[f"{name}.proj.weight"].shape
        overlaps += overlaps_from_widths(dim, [inputs], heads[block[0]])[1]
    dim, _, patch, _ = state["patch_embed.proj.weight"].shape
    window = (1 + math.isqrt(state[f"{attn[0, 0]}.relative_position_bias_table"].shape[0])) // 2
    args = dict(
        patch_size=patch,
        window_size=window,
        embed_dim=dim,
        depths=tuple(depths),
        num_heads=tuple(heads),
        mlp_ratio=state["layers.0.blocks.0.mlp.fc1.weight"].shape[0] / dim,
        qkv_bias=f"{attn[0, 0]}.qkv.bias" in state,
        num_classes=state["head.weight"].shape[0],
        overlap=overlaps,
    )
    if (mask := state.get("layers.0.blocks.1.attn_mask")) is not None:
        args["img_size"] = math.isqrt(mask.shape[0]) * window * patch
    weights = {}
    for name, tensor in state.items():
        if not name.endswith(("relative_position_index", "attn_mask")):
            name = re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name)
            weights[re.sub(r"^head\.", "head.fc.", name)] = tensor
    return "mohsa_swin_tiny_patch4_window7_224", args, weights


# A tensor that only this architecture has -> its converter: (state, num_heads) -> (model name, arguments, weights).
CONVERTERS: dict[str, Callable[[State, int | None], tuple[str, dict[str, Any], State]]] = {
    "to_patch_embedding.1.weight": _convert_vit,
    "layers.0.blocks.0.attn.relative_position_bias_table": _convert_swin,
}

"""The authors' CaiT: patch and class blocks of one make, of which the former's heads overlap."""

import math
from typing import Any

import torch

from .parts import State, blocks_of, check_inner_width, embeddings, mlp_ratio, overlaps_from_widths, renamed


def convert_cait(state: State, num_heads: int | None) -> tuple[str, dict[str, Any], State]:
    """Model, arguments and weights; the mixing matrices tell the number of heads."""
    patch_blocks, class_blocks = (blocks_of(state, f"{kind}_transformer.layers") for kind in ("patch", "cls"))
    if not class_blocks:
        raise ValueError(
            "this checkpoint of a CaiT has no class blocks (cls_transformer.*), which make its logits"
        )
    first = f"{patch_blocks[0]}.0.fn.fn"
    heads = len(state[f"{first}.mix_heads_pre_attn"])
    if num_heads not in (None, heads):
        raise ValueError(f"this checkpoint has {heads} heads, not {num_heads}; leave num_heads out")
    patch, weights = embeddings(state)
    dim = state["cls_token"].shape[-1]
    inner = len(state[f"{first}.to_q.weight"])
    check_inner_width(inner, dim)
    inputs = [state[f"{block}.0.fn.fn.to_out.0.weight"].shape[1] for block in patch_blocks]
    args = dict(
        img_size=patch * math.isqrt(state["pos_embedding"].shape[1]),
        patch_size=patch,
        embed_dim=dim,
        depth=len(patch_blocks),
        depth_token_only=len(class_blocks),
        num_heads=heads,
        mlp_ratio=mlp_ratio(len(state[f"{patch_blocks[0]}.1.fn.fn.net.0.weight"]), dim),
        mlp_ratio_token_only=mlp_ratio(len(state[f"{class_blocks[0]}.1.fn.fn.net.0.weight"]), dim),
        num_classes=len(state["mlp_head.1.weight"]),
        overlap=overlaps_from_widths(inner, inputs, heads)[1],
        norm_eps=1e-5,
        form="authors",
    )
    weights |= renamed(state, {"norm": "mlp_head.0", "head": "mlp_head.1"})
    for b, block in enumerate(patch_blocks):
        weights |= _block(state, block, f"blocks.{b}")
        q, kv = _projections(state, block)
        weights[f"blocks.{b}.attn.qkv.weight"] = torch.cat((q, kv))
    for b, block in enumerate(class_blocks):
        weights |= _block(state, block, f"blocks_token_only.{b}")
        q, kv = _projections(state, block)
        for name, weight in zip("qkv", (q, *kv.chunk(2)), strict=True):
            weights[f"blocks_token_only.{b}.attn.{name}.weight"] = weight
    return "mohsa_cait_xxs12_224", args, weights


def _projections(state: State, block: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries' weights, and those of keys over values."""
    return state[f"{block}.0.fn.fn.to_q.weight"], state[f"{block}.0.fn.fn.to_kv.weight"]


def _block(state: State, theirs: str, ours: str) -> State:
    """All of a block but queries, keys and values, under our names."""
    attn = f"{theirs}.0.fn.fn"
    pairs = {
        "norm1": f"{theirs}.0.fn.norm",
        "attn.proj": f"{attn}.to_out.0",
        "norm2": f"{theirs}.1.fn.norm",
        "mlp.fc1": f"{theirs}.1.fn.fn.net.0",
        "mlp.fc2": f"{theirs}.1.fn.fn.net.3",
    }
    return {
        # Their column j says how much of each head is in mixed head j; in a linear layer row j does.
        f"{ours}.attn.proj_l.weight": state[f"{attn}.mix_heads_pre_attn"].T,
        f"{ours}.attn.proj_w.weight": state[f"{attn}.mix_heads_post_attn"].T,
        f"{ours}.gamma_1": state[f"{theirs}.0.scale"].flatten(),
        f"{ours}.gamma_2": state[f"{theirs}.1.scale"].flatten(),
        **renamed(state, {f"{ours}.{name}": their_name for name, their_name in pairs.items()}),
    }

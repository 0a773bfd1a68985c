"""The authors' ViT."""

import math
from typing import Any

from .parts import State, blocks_of, check_inner_width, embeddings, mlp_ratio, overlaps_from_widths, renamed


def convert_vit(state: State, num_heads: int | None) -> tuple[str, dict[str, Any], State]:
    """Model, arguments and weights; the number of heads is told by the widths unless it is given."""
    blocks = blocks_of(state, "transformer.layers")
    patch, weights = embeddings(state)
    dim = state["cls_token"].shape[-1]
    inner = len(state[f"{blocks[0]}.0.fn.to_qkv.weight"]) // 3
    inputs = [state[f"{block}.0.fn.to_out.0.weight"].shape[1] for block in blocks]
    heads, overlaps = overlaps_from_widths(inner, inputs, num_heads)
    check_inner_width(inner, dim)
    args = dict(
        img_size=patch * math.isqrt(state["pos_embedding"].shape[1] - 1),
        patch_size=patch,
        embed_dim=dim,
        depth=len(blocks),
        num_heads=heads,
        mlp_ratio=mlp_ratio(len(state[f"{blocks[0]}.1.fn.net.0.weight"]), dim),
        num_classes=len(state["mlp_head.1.weight"]),
        overlap=overlaps,
        norm_eps=1e-5,
    )
    pairs = {"norm": "mlp_head.0", "head": "mlp_head.1"}
    for b, block in enumerate(blocks):
        pairs[f"blocks.{b}.norm1"] = f"{block}.0.norm"
        pairs[f"blocks.{b}.attn.proj"] = f"{block}.0.fn.to_out.0"
        pairs[f"blocks.{b}.norm2"] = f"{block}.1.norm"
        pairs[f"blocks.{b}.mlp.fc1"] = f"{block}.1.fn.net.0"
        pairs[f"blocks.{b}.mlp.fc2"] = f"{block}.1.fn.net.3"
        weights[f"blocks.{b}.attn.qkv.weight"] = state[f"{block}.0.fn.to_qkv.weight"]
    return "mohsa_vit_tiny_patch16_224", args, weights | renamed(state, pairs)

"""The authors' Swin, under Microsoft's names."""

import math
import re
from typing import Any

from .parts import State, mlp_ratio, overlaps_from_widths


def convert_swin(state: State, num_heads: int | None) -> tuple[str, dict[str, Any], State]:
    """Model, arguments and weights: timm keeps the names but for the place of the downsampling and the classifier's."""
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
        mlp_ratio=mlp_ratio(len(state["layers.0.blocks.0.mlp.fc1.weight"]), dim),
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

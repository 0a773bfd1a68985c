"""The authors' ViT, CaiT and Swin, each turned into one of this library's models: its name, arguments and weights."""

import math
import re
from typing import Any

import torch

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

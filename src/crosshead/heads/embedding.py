"""A model's heads as numbers that a page can hold: queries and keys in 8 bits, so that rows are computed there."""

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .layers import HeadLayer, head_layers
from .reading import Call, reading


@torch.no_grad()
def embed_blocks(
    model: nn.Module, pictures: Tensor, blocks: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """The attention layers of ``model`` on ``pictures`` (P, C, H, W), as the page's ``engine.js`` reads them.

    Raises:
        ValueError: no attention that can be read, a block that isn't there, or a kind that the page can't compute.
    """
    layers = head_layers(model, blocks)
    found: dict[str, dict[str, Any]] = {}
    was_training = model.training
    model.eval()
    try:
        with reading(
            model, layers, lambda call: found.__setitem__(call.layer.path, _block(call, len(pictures)))
        ):
            model(pictures)
    finally:
        model.train(was_training)
    return [found[layer.path] for layer in layers if layer.path in found]


def block_size(block: dict[str, Any]) -> int:
    """The characters that a block takes in the page, nearly."""
    if isinstance(block, dict):
        return sum(len(key) + 4 + block_size(value) for key, value in block.items())
    if isinstance(block, list):
        return sum(block_size(value) + 1 for value in block)
    return len(block) if isinstance(block, str) else 8


def _block(call: Call, pictures: int) -> dict[str, Any]:
    layer, heads, places = call.layer, call.heads, call.places
    view = layer.view
    q, k = view.interaction.operands(view, heads)
    own = (q.shape[-1] - view.head_dim) // 2
    grid_rows, grid_columns, where = _whole_grid(layer, call)
    mask = heads.window_mask
    return {
        "path": layer.path,
        "block": layer.block,
        "kind": layer.kind,
        "label": _label(layer),
        "heads": view.num_heads,
        "tokens": q.shape[2],
        "prefix": places.prefix,
        "rows": places.rows,
        "columns": places.columns,
        "gridRows": grid_rows,
        "gridColumns": grid_columns,
        "windows": places.windows,
        "places": None if where is None else _base64(where.to(torch.int32)),
        "width": q.shape[-1],
        "own": [own, own + view.head_dim],
        "scale": float(heads.scale),
        "bias": None if heads.bias is None else _packed(heads.bias, bits=16),
        "mask": None if mask is None else _base64((mask == 0).to(torch.uint8)),
        "signed": view.weights_are_signed(heads),
        **view.interaction.mixings(view, heads),
        "sights": [_sight(call, q, k, i, pictures) for i in range(pictures)],
    }

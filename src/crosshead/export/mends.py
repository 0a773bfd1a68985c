"""What of other libraries a tracer would freeze to the sizes that it traces with, or makes another graph of than the
model computes, written so that it does not."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import pos_embed_sincos
from torch import Tensor, nn

from crosshead.ops.interactive.landmarks import pooling_matrix

_MASKS, _MODELS = "transformers.masking_utils", "transformers.models."
_PROBABILITIES = "attn_mask_probs"  # of transformers' EoMT


@contextlib.contextmanager
def followed(model: nn.Module) -> Iterator[None]:
    """While a model is traced.

    - timm's DINOv3 divides places by ``float(side)``, a number of the example's; here by the side itself.
    - transformers makes an integer of a side by ``int()``, which is the example's; here it stays what it is.
    - transformers hands attention a mask that hides nothing while it is exported, and none else; here none.
    - transformers checks values of inputs, which no file can; here it doesn't.
    - transformers' EoMT asks a buffer whether to mask, which a tracer can't know; here the buffer is its numbers.
    - Averages over the cells of a map (timm's PVT v2, linear) are the example's; here they are made of its sides.
    - ONNX's attention takes four axes alone; more in front of them (timm's Twins, Hiera) are put together here.
    """
    with contextlib.ExitStack() as changes:
        for module, name, changed in _changes():
            before = getattr(module, name, None)
            if before is not None:  # else another version, whose files are compared as all are
                setattr(module, name, changed(before))
                changes.callback(setattr, module, name, before)
        for each in _asked(model):
            changes.enter_context(_known(each, _PROBABILITIES))
        yield


def _changes() -> Iterator[tuple[Any, str, Callable[[Any], Any]]]:
    yield pos_embed_sincos, "_build_grid", _free_grid
    yield F, "scaled_dot_product_attention", _of_four_axes
    yield F, "adaptive_avg_pool2d", _of_any_sides
    if _MASKS in sys.modules:  # loaded by whoever made the model
        yield sys.modules[_MASKS], "_ignore_bidirectional_mask_sdpa", _without_empty_masks
    for name, module in list(sys.modules.items()):
        if name.startswith(_MODELS):
            for asked, changed in (("torch_int", _free_integer), ("torch_compilable_check", _unchecked)):
                if asked in vars(module):
                    yield module, asked, changed


def _asked(model: nn.Module) -> Iterator[nn.Module]:
    """transformers' EoMT and what derives from it; a buffer of that name elsewhere may be computed with."""
    for each in model.modules():
        theirs = any(base.__module__.startswith(_MODELS) for base in type(each).__mro__)
        if theirs and each._buffers.get(_PROBABILITIES) is not None:
            yield each


@contextlib.contextmanager
def _known(module: nn.Module, name: str) -> Iterator[None]:
    """A buffer as the numbers that it holds."""
    kept = dict(module._buffers)  # in their order, which is that of the saved tensors
    del module._buffers[name]
    module.__dict__[name] = cast(Tensor, kept[name]).tolist()
    try:
        yield
    finally:
        del module.__dict__[name]
        module._buffers.clear()
        module._buffers.update(kept)


def _unchecked(check: Any) -> Any:
    return lambda *args, **options: None


def _free_grid(grid: Any) -> Any:
    def build_grid(feat_shape: Any, grid_type: str, *args: Any, **options: Any) -> Tensor:
        asked = (options.get("normalize_coords", "separate"), options.get("grid_indexing", "ij"))
        if args or grid_type != "centered" or asked != ("separate", "ij"):
            return grid(feat_shape, grid_type, *args, **options)  # type: ignore[no-any-return]
        return _centered(feat_shape, options.get("grid_offset", 0.0), options.get("device"))

    return build_grid


def _centered(sides: Any, offset: float, device: torch.device | None) -> Tensor:
    """(*sides, axes): the middles of a grid's places, from -1 to 1 along each axis."""
    places = [
        2.0 * ((torch.arange(side, device=device, dtype=torch.float32) + (0.5 + offset)) / side) - 1.0
        for side in sides
    ]
    return torch.stack(torch.meshgrid(*places, indexing="ij"), dim=-1)


def _without_empty_masks(ignored: Any) -> Any:
    def may_be_ignored(padding_mask: Any, kv_length: Any, local_attention_size: Any = None) -> bool:
        if padding_mask is None and local_attention_size is None:
            return True
        return bool(ignored(padding_mask, kv_length, local_attention_size))

    return may_be_ignored


def _free_integer(integer: Any) -> Any:
    return lambda x: x if isinstance(x, torch.SymInt) else integer(x)


def _of_four_axes(attention: Any) -> Any:
    def attend(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **options: Any
    ) -> Tensor:
        if query.dim() <= 4 or attn_mask is not None:
            return attention(query, key, value, attn_mask, *args, **options)  # type: ignore[no-any-return]
        four = (each.flatten(0, -4) for each in (query, key, value))
        found: Tensor = attention(*four, None, *args, **options)
        return found.unflatten(0, query.shape[:-3])

    return attend


def _of_any_sides(pool: Any) -> Any:
    def averages(maps: Tensor, output_size: Any) -> Tensor:
        cells = (output_size,) * 2 if isinstance(output_size, int) else tuple(output_size)
        sides = maps.shape[-2:]
        if all(isinstance(side, int) for side in sides) or None in cells or cells == (1, 1):
            return pool(maps, output_size)  # type: ignore[no-any-return]
        rows, columns = (pooling_matrix(side, cell, maps) for side, cell in zip(sides, cells, strict=True))
        return rows @ maps @ columns.mT

    return averages

"""What of other libraries a tracer would freeze to the sizes that it traces with, written so that it does not."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from timm.layers import pos_embed_sincos
from torch import Tensor

_GRID = "_build_grid"  # of timm, where rotary positions come from


@contextlib.contextmanager
def sizes_stay_free() -> Iterator[None]:
    """While a model is traced with sizes that vary. timm's DINOv3 divides places by ``float(side)``, a number of the
    example's; here by the side itself."""
    grid: Any = getattr(pos_embed_sincos, _GRID, None)
    if grid is None:  # another version of timm, whose files are compared as all are
        yield
        return

    def build_grid(feat_shape: Any, grid_type: str, *args: Any, **options: Any) -> Tensor:
        asked = (options.get("normalize_coords", "separate"), options.get("grid_indexing", "ij"))
        if args or grid_type != "centered" or asked != ("separate", "ij"):
            return grid(feat_shape, grid_type, *args, **options)  # type: ignore[no-any-return]
        return _centered(feat_shape, options.get("grid_offset", 0.0), options.get("device"))

    setattr(pos_embed_sincos, _GRID, build_grid)
    try:
        yield
    finally:
        setattr(pos_embed_sincos, _GRID, grid)


def _centered(sides: Any, offset: float, device: torch.device | None) -> Tensor:
    """(*sides, axes): the middles of a grid's places, from -1 to 1 along each axis."""
    places = [
        2.0 * ((torch.arange(side, device=device, dtype=torch.float32) + (0.5 + offset)) / side) - 1.0
        for side in sides
    ]
    return torch.stack(torch.meshgrid(*places, indexing="ij"), dim=-1)

"""Where the tokens of one call of an attention layer lie in the image."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Places:
    """The geometry of one call.

    Args:
        prefix: tokens before those on the grid.
        rows, columns: the grid of the tokens after them; in windows, that of one window.
        stride: pixels from one token of that grid to the next.
        windows: windows an image; 1 where attention sees the whole image.
    """

    prefix: int
    rows: int
    columns: int
    stride: tuple[float, float]
    windows: int = 1

    def separation(self, device: torch.device | str = "cpu") -> Tensor:
        """|x_i - x_j| between the tokens of the grid in pixels, (rows·columns, rows·columns)."""
        y = torch.arange(self.rows, device=device, dtype=torch.float32) * self.stride[0]
        x = torch.arange(self.columns, device=device, dtype=torch.float32) * self.stride[1]
        points = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1)
        return (points[:, None] - points).norm(dim=-1)


def places_of(
    batch: int,
    tokens: int,
    images: int,
    image_size: tuple[int, int],
    prefix: int,
    grid: tuple[int, int] | None = None,
) -> Places:
    """The geometry of a call with (batch, tokens) tokens for ``images`` images of ``image_size`` pixels.

    Args:
        prefix: the model's prefix tokens; a layer that is not given them (a patch block of CaiT) is noticed.
        grid: rows and columns, where the layer was told.

    Raises:
        ValueError: tokens that make no grid of the image.
    """
    height, width = image_size
    windows = batch // images
    if windows > 1:
        side = math.isqrt(tokens)
        if side * side != tokens:
            raise ValueError(f"a window of {tokens} tokens is no square; its places are not known")
        step = math.sqrt(height * width / (windows * tokens))
        return Places(0, side, side, (step, step), windows)
    for p in (prefix, 0):
        rows, columns = grid if grid is not None and p == prefix else _grid(tokens - p, height, width)
        if rows * columns == tokens - p and rows:
            return Places(p, rows, columns, (height / rows, width / columns))
    raise ValueError(
        f"{tokens} tokens ({prefix} of them before the grid) make no grid of an image of {height} x {width} pixels"
    )


def _grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """The rows and columns of square patches that cover an image."""
    if tokens < 1:
        return 0, 0
    rows = max(round(math.sqrt(tokens * height / width)), 1)
    return rows, tokens // rows

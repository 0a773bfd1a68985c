"""Where the tokens of one call of an attention layer lie in the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models import maxxvit, swin_transformer
from torch import Tensor, nn

from ..models.windowed_vit import WindowedViT, partition_windows


@dataclass(frozen=True)
class Places:
    """The geometry of one call.

    Args:
        prefix: tokens before those on the grid.
        rows, columns: the grid of all tokens of an image.
        stride: pixels from one row, and one column, of that grid to the next.
        windows: windows an image; 1 where attention sees the whole image.
        tokens: (windows, tokens of a window): which token of the grid each is, -1 where a window was filled up.
    """

    prefix: int
    rows: int
    columns: int
    stride: tuple[float, float]
    windows: int
    tokens: Tensor

    @property
    def size(self) -> tuple[float, float]:
        """Height and width in pixels of what the grid covers."""
        return self.rows * self.stride[0], self.columns * self.stride[1]

    @property
    def real(self) -> Tensor:
        """(windows, tokens of a window): whether each is a token of the grid, and does not fill a window up."""
        return self.tokens >= 0

    @property
    def count(self) -> int:
        """Tokens on the grid that one query of a window may see, masks apart."""
        return self.tokens.shape[1]

    def separation(self, queries: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """|x_i - x_j| from some tokens of a window to all of them, in pixels; (queries, count).

        Windows are alike, but for those of their tokens that fill them up; these lie nowhere.
        """
        first = self.tokens[0].to(device).float()
        points = torch.stack(
            [(first // self.columns) * self.stride[0], (first % self.columns) * self.stride[1]], -1
        )
        # Not by a matrix product, which loses digits between near neighbours.
        return torch.cdist(points[list(queries)], points, compute_mode="donot_use_mm_for_euclid_dist")

    def query_at(self, x: float, y: float) -> tuple[int, int]:
        """The window, and the token in it with the prefix counted, at a place from 0 to 1 of width and height."""
        row, column = min(int(y * self.rows), self.rows - 1), min(int(x * self.columns), self.columns - 1)
        window, token = (self.tokens == row * self.columns + column).nonzero()[0].tolist()
        return window, self.prefix + token

    def laid(self, rows: Tensor) -> Tensor:
        """Rows of all windows (images · windows, heads, count), on the grid: (images, heads, rows · columns)."""
        if self.windows == 1:
            return rows
        rows = rows.unflatten(0, (-1, self.windows)).transpose(1, 2)
        whole = rows.new_empty(*rows.shape[:2], self.rows * self.columns)
        real = self.real.to(rows.device)
        whole[..., self.tokens.to(rows.device)[real]] = rows[..., real]
        return whole

    def on_grid(self, row: Tensor, window: int) -> Tensor:
        """Weights of a window's tokens (..., count) laid onto the grid (..., rows, columns); NaN outside the window."""
        laid = row.new_full((*row.shape[:-1], self.rows * self.columns), torch.nan)
        inside = self.tokens[window] >= 0
        laid[..., self.tokens[window][inside]] = row[..., inside]
        return laid.unflatten(-1, (self.rows, self.columns))


def places_of(
    shape: tuple[int, int],
    images: int,
    image_size: tuple[int, int],
    prefix: int,
    grid: tuple[int, int] | None,
    block: nn.Module,
    block_grid: tuple[int, int] | None,
) -> Places:
    """The geometry of a call.

    Args:
        shape: (batch, tokens) of the call.
        images, image_size: how many there are, and their pixels (height, width).
        prefix: the model's prefix tokens; a layer that is not given them (a patch block of CaiT) is noticed.
        grid: rows and columns, where the layer was told.
        block: what holds the layer.
        block_grid: rows and columns of what the block was given, where that is a map.

    Raises:
        ValueError: tokens that make no grid of the image, or windows that are not known.
    """
    batch, tokens = shape
    height, width = image_size
    if batch > images:
        if block_grid is None:
            raise ValueError(f"{type(block).__name__} attends in windows whose places are not known")
        where = window_places(block, *block_grid)
        if where.shape != (batch // images, tokens):
            raise ValueError(f"{type(block).__name__} attends in windows of another kind than its class")
        stride = (height / block_grid[0], width / block_grid[1])
        return Places(0, *block_grid, stride, len(where), where)
    for p in (prefix, 0):
        rows, columns = (
            grid if grid is not None and math.prod(grid) == tokens - p else _grid(tokens - p, height, width)
        )
        if rows * columns == tokens - p and rows:
            where = torch.arange(rows * columns).unsqueeze(0)
            return Places(p, rows, columns, (height / rows, width / columns), 1, where)
    raise ValueError(
        f"{tokens} tokens ({prefix} of them before the grid) make no grid of an image of {height} x {width} pixels"
    )


def windowed_places(
    shape: tuple[int, int], image_size: tuple[int, int], prefix: int, vit: WindowedViT
) -> Places:
    """The geometry of a call of a block that attends in windows, each of the prefix and a square of tokens."""
    rows, columns = vit.vit.patch_embed.dynamic_feat_size(image_size)  # type: ignore[operator, union-attr]
    numbers = torch.arange(1, rows * columns + 1).view(1, -1, 1)
    assert vit.window is not None
    where = partition_windows(numbers, (rows, columns), vit.window)[0].squeeze(-1) - 1
    assert where.shape[1] == shape[1] - prefix
    stride = (image_size[0] / rows, image_size[1] / columns)
    return Places(prefix, rows, columns, stride, len(where), where)


def _grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """The rows and columns of square patches that cover an image."""
    if tokens < 1:
        return 0, 0
    rows = max(round(math.sqrt(tokens * height / width)), 1)
    return rows, tokens // rows


def window_places(block: nn.Module, rows: int, columns: int) -> Tensor:
    """The token of a (rows, columns) grid at each place of each window, (windows, tokens); -1 where it is padding.

    Args:
        block: what holds the attention: a block of Swin (v1, v2; timm's, torchvision's or transformers') or a
            partition of MaxViT.

    Raises:
        ValueError: a block whose windows are not known.
    """
    numbers = torch.arange(1, rows * columns + 1).view(1, rows, columns, 1)
    if hasattr(block, "partition_block"):
        size = list(block.partition_size)  # type: ignore[arg-type]
        part = maxxvit.window_partition if block.partition_block else maxxvit.grid_partition
        return part(numbers, size).flatten(1) - 1
    # torchvision and transformers fill the map up before they shift it, timm afterwards.
    cutting = getattr(block, "attn", None)
    if not hasattr(block, "window_size") and hasattr(cutting, "shift_size"):
        size, given = list(cutting.window_size), list(cutting.shift_size)  # type: ignore
        shift = [0 if w >= n else s for w, n, s in zip(size, (rows, columns), given, strict=True)]
        return _filled_then_shifted(numbers, size, shift)
    if isinstance(getattr(block, "attention", None), nn.Module) and hasattr(block, "shift_size"):
        return _filled_then_shifted(numbers, 2 * [block.window_size], 2 * [block.shift_size])  # type: ignore
    if hasattr(block, "shift_size") and hasattr(block, "window_size"):
        (high, wide), (down, right) = _pair(block.window_size), _pair(block.shift_size)
        shifted = torch.roll(numbers, (-down, -right), (1, 2))
        padded = F.pad(shifted, (0, 0, 0, -columns % wide, 0, -rows % high))
        return swin_transformer.window_partition(padded, (high, wide)).flatten(1) - 1
    raise ValueError(f"{type(block).__name__} attends in windows whose places are not known")


def _filled_then_shifted(numbers: Tensor, size: list[int], shift: list[int]) -> Tensor:
    rows, columns = numbers.shape[1:3]
    padded = F.pad(numbers, (0, 0, 0, -columns % size[1], 0, -rows % size[0]))
    shifted = torch.roll(padded, (-shift[0], -shift[1]), (1, 2))
    return swin_transformer.window_partition(shifted, (size[0], size[1])).flatten(1) - 1


def _pair(size: object) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)  # type: ignore[arg-type, return-value]

"""Which tokens of an image's grid share a window: timm's own partition, applied to the tokens' numbers."""

import torch
import torch.nn.functional as F
from timm.models import maxxvit, swin_transformer
from torch import Tensor, nn


def window_places(block: nn.Module, rows: int, columns: int) -> Tensor:
    """The token of a (rows, columns) grid at each place of each window, (windows, tokens); -1 where it is padding.

    Args:
        block: what holds the attention: a block of Swin (v1, v2) or a partition of MaxViT.

    Raises:
        ValueError: a block whose windows are not known.
    """
    numbers = torch.arange(1, rows * columns + 1).view(1, rows, columns, 1)
    if hasattr(block, "partition_block"):
        size = list(block.partition_size)  # type: ignore[arg-type]
        part = maxxvit.window_partition if block.partition_block else maxxvit.grid_partition
        return part(numbers, size).flatten(1) - 1
    if hasattr(block, "shift_size") and hasattr(block, "window_size"):
        (high, wide), (down, right) = _pair(block.window_size), _pair(block.shift_size)
        shifted = torch.roll(numbers, (-down, -right), (1, 2))
        padded = F.pad(shifted, (0, 0, 0, -columns % wide, 0, -rows % high))
        return swin_transformer.window_partition(padded, (high, wide)).flatten(1) - 1
    raise ValueError(f"{type(block).__name__} attends in windows whose places are not known")


def _pair(size: object) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)  # type: ignore[arg-type, return-value]

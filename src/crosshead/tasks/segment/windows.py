"""A segmenter on pictures larger than it can take at once, and from its grid to the pictures' own pixels."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crosshead.models.segmenters import Segmenter, full_size

OVERLAP = 0.25  # of a window's side, at least


def windowed_logits(model: Segmenter, images: Tensor, window: int | None) -> Tensor:
    """Class logits (B, classes, h, w) of images (B, C, H, W), one step of the grid ``model.stride`` pixels.

    Larger images than ``window`` pixels a side go through ``model`` in windows of that side, rounded up to the grid,
    which overlap by a quarter or more; where they do, their logits are averaged.
    """
    height, width = images.shape[-2:]
    if window is None or max(height, width) <= window:
        return model(images)
    stride = model.stride
    side = -(-window // stride) * stride
    rows, columns = -(-height // stride), -(-width // stride)
    total = torch.zeros(len(images), model.num_classes, rows, columns, device=images.device)
    seen = torch.zeros(rows, columns, device=images.device)
    for top in starts(height, side, stride):
        for left in starts(width, side, stride):
            logits = model(images[..., top : top + side, left : left + side])
            row, column = top // stride, left // stride
            down, right = min(side // stride, rows - row), min(side // stride, columns - column)
            total[..., row : row + down, column : column + right] += logits[..., :down, :right]
            seen[row : row + down, column : column + right] += 1
    return total / seen


def starts(length: int, side: int, stride: int) -> list[int]:
    """Where windows of ``side`` pixels begin so that they cover ``length``: multiples of ``stride``, evenly spread."""
    if length <= side:
        return [0]
    last = -(-(length - side) // stride)
    count = -(-last * stride // int(side * (1 - OVERLAP)))
    return sorted({round(last * i / count) * stride for i in range(count + 1)})


def classes_at(
    logits: Tensor, stride: int, size: Sequence[int], own: Sequence[int], *, at_once: int = 8
) -> list[Tensor]:
    """The most likely class of each pixel, (height, width) int64 of size ``own``, for images that were resized to
    ``size`` before they gave these logits (B, classes, h, w).

    Never more than ``at_once`` classes are at full size: 150 on 1024 x 2048 pixels would take 1.2 GiB a picture.
    """
    best = logits.new_full((len(logits), *own), -math.inf)
    chosen = torch.zeros(best.shape, dtype=torch.int64, device=logits.device)
    for first in range(0, logits.shape[1], at_once):
        grown = full_size(logits[:, first : first + at_once], stride, size)
        if tuple(size) != tuple(own):
            grown = F.interpolate(grown, size=tuple(own), mode="bilinear", align_corners=False)
        values, indices = grown.max(1)
        better = values > best
        best = torch.where(better, values, best)
        chosen = torch.where(better, indices + first, chosen)
    return list(chosen)

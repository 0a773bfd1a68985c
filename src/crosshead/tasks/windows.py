"""Models on pictures larger than they can take at once, and from a segmenter's grid to the pictures' own pixels."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

from crosshead.models.detectors import Detector
from crosshead.models.segmenters import Segmenter, full_size

OVERLAP = 0.25  # of a window's side, at least
_STEP = 32  # pixels: where windows may begin
_EDGE = 2.0  # pixels: a box that ends so near at a window's inner edge was cut off by it


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


def detect(model: Detector, images: Tensor, sizes: list[tuple[int, int]], window: int | None) -> list[Any]:
    """What ``model`` finds in images (B, C, H, W), each (height, width) of ``sizes`` in its top left corner; see
    ``Detector``.

    Pictures with a side above ``window`` pixels go through in windows of that side, rounded up to a multiple of 32,
    which overlap by a quarter or more.
    """
    if window is None or max(images.shape[-2:]) <= window:
        return model(images, sizes)
    return [
        _in_windows(model, image[:, :height, :width], window)
        for image, (height, width) in zip(images, sizes, strict=True)
    ]


def _in_windows(model: Detector, image: Tensor, window: int) -> dict[str, Tensor]:
    """Of one picture (C, height, width): what was found in each window, moved to its place, but for what an edge cut
    off and another window sees whole; of what overlaps within a class the best alone. How many a window may find is the
    model's; how many a picture has is not limited."""
    side = -(-window // _STEP) * _STEP
    height, width = image.shape[-2:]
    parts = []
    for top in starts(height, side, _STEP):
        for left in starts(width, side, _STEP):
            piece = image[:, top : top + side, left : left + side]
            high, wide = piece.shape[-2:]
            padded = F.pad(piece, (0, side - wide, 0, side - high))
            (found,) = model(padded[None], [(high, wide)])
            whole = _whole(found["boxes"], (top, left, high, wide), (height, width))
            moved = found | {"boxes": found["boxes"] + found["boxes"].new_tensor([left, top] * 2)}
            parts.append({name: values[whole] for name, values in moved.items()})
    together = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    kept = batched_nms(together["boxes"], together["scores"], together["labels"], model.nms_threshold)
    return {name: values[kept] for name, values in together.items()}


def _whole(boxes: Tensor, place: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor:
    """Which boxes no edge of the window ``place`` (top, left, height, width) that lies inside the picture cuts off, or
    in a direction in which they are so long that another window need not see them whole."""
    kept = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for axis, (begin, length, whole) in enumerate(
        ((place[1], place[3], size[1]), (place[0], place[2], size[0]))
    ):
        low, high = boxes[:, axis], boxes[:, axis + 2]
        cut = torch.zeros_like(kept)
        if begin:
            cut |= low < _EDGE
        if begin + length < whole:
            cut |= high > length - _EDGE
        kept &= ~cut | (high - low > length * OVERLAP)
    return kept

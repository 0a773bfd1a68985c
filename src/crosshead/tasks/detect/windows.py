"""A detector on pictures larger than it can take at once."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from crosshead.models.detectors import Detector
from crosshead.tasks.segment.windows import OVERLAP, starts

_STEP = 32  # pixels: where windows may begin
_EDGE = 2.0  # pixels: a box that ends so near at a window's inner edge was cut off by it


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

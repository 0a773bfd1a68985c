"""From a segmenter's logits on its grid to the class of each pixel, in NumPy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosshead.data.coco.rle import encode, to_coco
from crosshead.export.about import About

_AT_ONCE = 8  # classes at full size
Floats = NDArray[np.float32]


def segmented(logits: Floats, seen: tuple[int, int], own: tuple[int, int], about: About) -> dict[str, Any]:
    """The segments of one picture, the largest first: ``logits`` (classes, h, w), the (height, width) that the model
    saw, and the picture's own."""
    classes = classes_at(logits, about.stride or 1, seen, own)
    numbers, counts = np.unique(classes, return_counts=True)
    segments = [
        {
            "class": about.classes[number],
            "index": number,
            "pixels": count,
            "share": round(count / classes.size, 6),
            "segmentation": to_coco(encode(classes == number)),
        }
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
    ]
    segments.sort(key=lambda segment: -segment["pixels"])
    return {"size": list(own), "segments": segments}


def classes_at(logits: Floats, stride: int, seen: tuple[int, int], own: tuple[int, int]) -> NDArray[np.int64]:
    """The most likely class of each pixel, (height, width) of ``own``."""
    best = np.full(own, -np.inf, np.float32)
    chosen = np.zeros(own, np.int64)
    for first in range(0, len(logits), _AT_ONCE):
        grown = bilinear(
            logits[first : first + _AT_ONCE], (logits.shape[1] * stride, logits.shape[2] * stride)
        )[:, : seen[0], : seen[1]]
        grown = grown if seen == own else bilinear(grown, own)
        values = grown.max(0)
        better = values > best
        chosen = np.where(better, grown.argmax(0) + first, chosen)
        best = np.where(better, values, best)
    return chosen


def bilinear(maps: Floats, size: tuple[int, int]) -> Floats:
    """Maps (C, h, w) -> (C, *size), as PyTorch's ``interpolate`` without aligned corners."""
    (top, below, low), (left, right, near) = (
        _places(old, new) for old, new in zip(maps.shape[1:], size, strict=True)
    )
    one = np.float32(1)
    rows = maps[:, top] * (one - low)[:, None] + maps[:, below] * low[:, None]
    out: Floats = rows[:, :, left] * (one - near) + rows[:, :, right] * near
    return out


def _places(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Of each new place the two old ones it lies between, and the share of the second."""
    at = np.maximum(
        (np.arange(new).astype(np.float32) + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5), 0
    )
    first = np.minimum(at.astype(np.int64), old - 1)
    return first, np.minimum(first + 1, old - 1), (at - first).astype(np.float32)

"""Sizes, aspects, number and overlap of a split's boxes, for ``crosshead data check``."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.1, 0.5, 0.9)
CROWDED = 0.5  # of overlap (IoU), from which on usual suppression takes the one for the other


@dataclass(frozen=True)
class BoxStatistics:
    """Of objects that are no crowds, in the pictures' own pixels. ``sides`` (the root of the box's area) and
    ``aspects`` (height over width) at ``QUANTILES``; objects ``a_picture``: fewest, median, most; ``overlapping`` is
    the share whose box overlaps another one of its picture by ``CROWDED`` or more."""

    sides: tuple[float, ...]
    aspects: tuple[float, ...]
    a_picture: tuple[float, float, float]
    overlapping: float

    def lines(self) -> list[str]:
        few, median, many = self.a_picture
        return [
            f"boxes: sides {_span(self.sides)} pixels (a tenth below, median, a tenth above), height over width "
            f"{_span(self.aspects)}",
            f"{few:.0f} to {many:.0f} objects a picture, median {median:g}; {self.overlapping:.1%} overlap another by "
            "half or more",
        ]


def box_statistics(pictures: Sequence[NDArray[np.float64]]) -> BoxStatistics | None:
    """Of boxes (n, 4), x1, y1, x2, y2, a picture; None where there is none."""
    boxes = np.concatenate([np.zeros((0, 4)), *pictures])
    sizes = boxes[:, 2:] - boxes[:, :2]
    sizes = sizes[(sizes > 0).all(1)]
    if not len(sizes):
        return None
    counts = [len(each) for each in pictures]
    overlapping = sum(int(_overlapping(each).sum()) for each in pictures)
    return BoxStatistics(
        tuple(np.quantile(np.sqrt(sizes.prod(1)), QUANTILES).tolist()),
        tuple(np.quantile(sizes[:, 1] / sizes[:, 0], QUANTILES).tolist()),
        (float(min(counts)), float(np.median(counts)), float(max(counts))),
        overlapping / len(boxes),
    )


def _overlapping(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,): whether a box overlaps another one so much."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    both = (high - low).clip(min=0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    union = areas[:, None] + areas[None] - both
    shares = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    np.fill_diagonal(shares, 0)
    out: NDArray[np.bool_] = (shares >= CROWDED).any(1)
    return out


def _span(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.3g}" for value in values)

"""The objects of a picture, for detection and instance segmentation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosshead.data.coco.rle import RLE, decode


@dataclass(frozen=True)
class Objects:
    """Of a picture of ``size`` (height, width) in pixels.

    ``boxes`` (n, 4) float64, x1, y1, x2, y2 in pixels; ``labels`` (n,) int64 from 0; ``crowd`` (n,) bool: what is
    neither right nor wrong to find (COCO's iscrowd); ``areas`` (n,) float64 in pixels; ``masks`` run lengths of each
    object, or None where there are boxes alone.
    """

    size: tuple[int, int]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    masks: Sequence[RLE] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def whole_masks(self) -> NDArray[np.bool_]:
        """(n, height, width), decoded."""
        assert self.masks is not None
        if not self.masks:
            return np.zeros((0, *self.size), dtype=bool)
        return np.stack([decode(mask) for mask in self.masks])


def no_objects(size: tuple[int, int], *, masks: bool) -> Objects:
    """A picture without any."""
    return Objects(
        size,
        np.zeros((0, 4)),
        np.zeros(0, np.int64),
        np.zeros(0, bool),
        np.zeros(0),
        () if masks else None,
    )

"""What a segmenter did in each picture: pixels of every class and along its borders, and scores of these."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REACH = 0.02  # of a picture's diagonal: how far from a border its pixels count as along it (arXiv 2103.16562)
COUNTS = 5  # right, there, said; along borders in both, and in either


@dataclass(frozen=True)
class PictureCounts:
    """``table`` (N, 1 + 5 · classes) int64, a row a picture in the data set's order: its index, and for each class how
    many pixels were right, are there and were said, and how many lie along borders in both and in either."""

    table: Tensor

    def _counts(self, which: int) -> Tensor:
        classes = (self.table.shape[1] - 1) // COUNTS
        return self.table[:, 1 + which * classes : 1 + (which + 1) * classes]

    @property
    def index(self) -> list[int]:
        out: list[int] = self.table[:, 0].tolist()
        return out

    @property
    def borders(self) -> Tensor:
        """(N, 2, classes): pixels along borders in both, and in either."""
        return torch.stack([self._counts(3), self._counts(4)], 1)

    @property
    def miou(self) -> Tensor:
        """(N,) over the classes that the picture has or was said to have; NaN where no pixel has a class."""
        right, there, said = (self._counts(i) for i in range(3))
        return _mean(ratio(right, there + said - right))

    @property
    def dice(self) -> Tensor:
        right, there, said = (self._counts(i) for i in range(3))
        return _mean(ratio(2 * right, there + said))

    @property
    def accuracy(self) -> Tensor:
        """(N,) share of the pixels with a class that are right."""
        return ratio(self._counts(0).sum(1), self._counts(1).sum(1))

    @property
    def boundary_iou(self) -> Tensor:
        return _mean(ratio(self._counts(3), self._counts(4)))

    def rows(self) -> list[dict[str, float | int | None]]:
        """A row a picture, beginning with its "index"."""
        scores = {"miou": self.miou, "dice": self.dice, "boundary_iou": self.boundary_iou}
        scores["pixel_accuracy"] = self.accuracy
        named = {
            name: [round(v, 6) if v == v else None for v in values.tolist()]
            for name, values in scores.items()
        }
        return [
            {"index": index} | {name: values[i] for name, values in named.items()}
            for i, index in enumerate(self.index)
        ]


def count_picture(index: int, said: Tensor, there: Tensor, classes: int, ignored: int) -> Tensor:
    """The row of a picture with maps (height, width), see ``PictureCounts``; pixels that are ``ignored`` in ``there``
    count nowhere, and are no border."""
    truth, answer = there.cpu().numpy().astype(np.int64), said.cpu().numpy().astype(np.int64)
    known = truth != ignored
    counts = np.zeros((COUNTS, classes), np.int64)
    counts[0] = np.bincount(truth[known & (truth == answer)], minlength=classes)
    counts[1], counts[2] = (np.bincount(each[known], minlength=classes) for each in (truth, answer))
    for k in np.flatnonzero(counts[1] + counts[2]):
        edges = [along_border((each == k) | ~known) & known for each in (truth, answer)]
        counts[3, k], counts[4, k] = (
            np.count_nonzero(edges[0] & edges[1]),
            np.count_nonzero(edges[0] | edges[1]),
        )
    return torch.cat([torch.tensor([index]), torch.from_numpy(counts.ravel())])


def along_border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of ``mask`` (height, width) no farther than ``REACH`` from what is not of it, or from the edge."""
    from scipy.ndimage import distance_transform_cdt

    reach = max(1, round(REACH * float(np.hypot(*mask.shape))))
    # Distances along rows, columns and diagonals alike: what a square of ones erodes, as in the paper's code.
    depth = distance_transform_cdt(np.pad(mask, 1), metric="chessboard")[1:-1, 1:-1]
    out: NDArray[np.bool_] = mask & (depth <= reach)
    return out


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """NaN of nothing."""
    return part.double() / whole.double().where(whole > 0, torch.nan)


def _mean(values: Tensor) -> Tensor:
    return values.nanmean(1)

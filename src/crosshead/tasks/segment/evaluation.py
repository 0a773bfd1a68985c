"""Judging a segmenter by one table of all pixels: how many of each class were taken for which."""

import math
from typing import Any

import torch
from torch import Tensor

from crosshead.data.base import IGNORED, Batch
from crosshead.tasks.protocol import EvalResult


class SegmentEvaluation:
    """A confusion matrix, rows what is there and columns what was said, and a count of images: whole numbers, whose sum
    does not depend on which process saw what."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names
        self._sums = torch.zeros(len(class_names) ** 2 + 1, dtype=torch.int64)

    def update(self, predictions: list[Tensor], batch: Batch) -> None:
        classes = len(self.class_names)
        for said, there in zip(predictions, batch.targets, strict=True):
            known = there != IGNORED
            pairs = there[known].long() * classes + said[known].long()
            self._sums[:-1] += torch.bincount(pairs, minlength=classes**2).cpu()
        self._sums[-1] += len(predictions)

    def sums(self) -> Tensor:
        return self._sums

    def rows(self) -> None:
        return None

    def compute(self, sums: Tensor, rows: list[Any]) -> EvalResult:
        """Means over the classes that there are: mIoU over those in the maps or in what was said, mean accuracy over
        those in the maps."""
        classes = len(self.class_names)
        table = sums[:-1].reshape(classes, classes)
        right, there, said = (each.double() for each in (table.diagonal(), table.sum(1), table.sum(0)))
        iou, accuracy = right / (there + said - right), right / there
        metrics = {
            "miou": _mean(iou),
            "mean_accuracy": _mean(accuracy),
            "pixel_accuracy": float(right.sum() / there.sum()),
            "count": float(sums[-1]),
        }
        each = zip(self.class_names, iou.tolist(), accuracy.tolist(), table.sum(1).tolist(), strict=True)
        per_class = [
            {"class": name, "iou": _known(one), "accuracy": _known(other), "pixels": pixels}
            for name, one, other, pixels in each
        ]
        return EvalResult(metrics, {"classes": per_class, "confusion": table.tolist()})


def _mean(values: Tensor) -> float:
    """Of those that are numbers: 0 / 0 is that of a class that is not there."""
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else math.nan


def _known(value: float) -> float | None:
    return None if value != value else value

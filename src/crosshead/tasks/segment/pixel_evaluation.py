"""Judging a segmenter by one table of all pixels: how many of each class were taken for which."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from crosshead.data.base import IGNORED, Batch
from crosshead.tasks.metrics import compute_metrics, register_metric
from crosshead.tasks.protocol import EvalResult
from crosshead.tasks.segment.pictures import COUNTS, PictureCounts, count_picture

METRICS = ("miou", "mean_accuracy", "pixel_accuracy")
_OF_THE_TABLE = {*METRICS, "dice"}  # metrics for which the table of all pixels serves


@dataclass(frozen=True)
class SegmentationOutputs:
    """``confusion`` (classes, classes) int64: how many pixels of all images are of one class, and were said to be of
    another. ``pictures`` have the same of each picture, and of borders, where the recipe asks for metrics beyond those
    that the table gives, or predictions were asked for."""

    confusion: Tensor
    class_names: tuple[str, ...]
    pictures: PictureCounts | None = None

    @cached_property
    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        table = self.confusion
        right, there, said = (each.double() for each in (table.diagonal(), table.sum(1), table.sum(0)))
        return right, there, said

    @property
    def iou(self) -> Tensor:
        """(classes,), NaN of a class that is neither in the maps nor in what was said."""
        right, there, said = self._counts
        return right / (there + said - right)

    @property
    def accuracy(self) -> Tensor:
        """(classes,), NaN of a class that is not in the maps."""
        right, there, _ = self._counts
        return right / there

    @property
    def pixel_accuracy(self) -> float:
        right, there, _ = self._counts
        return float(right.sum() / there.sum())


class SegmentEvaluation:
    """A confusion matrix, rows what is there and columns what was said, and a count of images: whole numbers, whose sum
    does not depend on which process saw what."""

    def __init__(
        self, class_names: tuple[str, ...], metrics: Sequence[str] = METRICS, *, predictions: bool = False
    ) -> None:
        self.class_names, self.metrics, self.predictions = class_names, metrics, predictions
        self.by_picture = predictions or not set(metrics) <= _OF_THE_TABLE
        self._rows: list[Tensor] = []
        self._sums = torch.zeros(len(class_names) ** 2 + 1, dtype=torch.int64)

    def update(self, predictions: list[Tensor], batch: Batch) -> None:
        classes = len(self.class_names)
        for said, there in zip(predictions, batch.targets, strict=True):
            known = there != IGNORED
            pairs = there[known].long() * classes + said[known].long()
            self._sums[:-1] += torch.bincount(pairs, minlength=classes**2).cpu()
        self._sums[-1] += len(predictions)
        if self.by_picture:
            pictures = zip(batch.index.tolist(), predictions, batch.targets, strict=True)
            self._rows += [count_picture(i, said, there, classes, IGNORED) for i, said, there in pictures]

    def sums(self) -> Tensor:
        return self._sums

    def rows(self) -> Tensor:
        """(pictures, columns) int64, see ``PictureCounts``; none where nothing asks for them."""
        width = 1 + COUNTS * len(self.class_names)
        return torch.stack(self._rows) if self._rows else torch.zeros(0, width, dtype=torch.int64)

    def compute(self, sums: Tensor, rows: list[Any]) -> EvalResult:
        """Over the pixels of all processes: the metrics, the count of images, and a row a class."""
        classes = len(self.class_names)
        table = sums[:-1].reshape(classes, classes)
        outputs = SegmentationOutputs(table, self.class_names, self._pictures(rows))
        metrics = compute_metrics(self.metrics, outputs) | {"count": float(sums[-1])}
        iou, accuracy = outputs.iou.tolist(), outputs.accuracy.tolist()
        per_class = [
            {"class": name, "iou": _known(one), "accuracy": _known(other), "pixels": pixels}
            for name, one, other, pixels in zip(
                self.class_names, iou, accuracy, table.sum(1).tolist(), strict=True
            )
        ]
        details = {"classes": per_class, "confusion": table.tolist()}
        if not self.predictions or outputs.pictures is None:
            return EvalResult(metrics, details)
        return EvalResult(metrics, details, outputs.pictures.rows(), outputs=outputs)

    def _pictures(self, rows: list[Any]) -> PictureCounts | None:
        if not self.by_picture:
            return None
        table = torch.cat(rows)
        return PictureCounts(table[table[:, 0].argsort()])


@register_metric("miou", "mIoU", of=SegmentationOutputs)
def _miou(outputs: SegmentationOutputs) -> float:
    """The mean over the classes that are in the maps or in what was said."""
    return mean_known(outputs.iou)


@register_metric("mean_accuracy", of=SegmentationOutputs)
def _mean_accuracy(outputs: SegmentationOutputs) -> float:
    """The mean over the classes that are in the maps."""
    return mean_known(outputs.accuracy)


@register_metric("pixel_accuracy", of=SegmentationOutputs)
def _pixel_accuracy(outputs: SegmentationOutputs) -> float:
    return outputs.pixel_accuracy


def mean_known(values: Tensor) -> float:
    """Of those that are numbers: 0 / 0 is that of a class that is not there."""
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else math.nan


def _known(value: float) -> float | None:
    return None if value != value else value

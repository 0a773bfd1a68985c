"""Judging a classifier image by image, so that it does not matter which process saw which image."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from crosshead.data.base import Batch
from crosshead.tasks.metrics import compute_metrics, register_metric
from crosshead.tasks.protocol import EvalResult

MOST_DRAWN = 256  # classes of a confusion matrix that is kept
BINS = 15  # of the calibration error, as in its paper
_INDEX, _LOSS, _FIRST, _FIVE, _TARGET, _PREDICTED, _CONFIDENCE, _COLUMNS = range(8)


METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error", "top5", "loss")


def own_metrics(classes: int) -> tuple[str, ...]:
    """Those of ``METRICS`` that say something of so many classes."""
    return tuple(name for name in METRICS if name != "top5" or classes > 5)


@dataclass(frozen=True)
class ClassificationOutputs:
    """What a classifier said of the N images of a split, in the data set's order. ``table`` has a row an image, see
    ``ClassifyEvaluation``; the arrays (N,) below are its columns.

    ``probabilities`` (N, classes) are kept where the recipe asks for metrics beyond the task's own; else None.
    """

    table: Tensor
    class_names: tuple[str, ...]

    @property
    def index(self) -> NDArray[np.int64]:
        """Each image's place in the data set."""
        return self.table[:, _INDEX].long().numpy()

    @property
    def losses(self) -> NDArray[np.float64]:
        """Of each image, its cross entropy."""
        return self.table[:, _LOSS].numpy()

    @property
    def target(self) -> NDArray[np.int64]:
        return self.table[:, _TARGET].long().numpy()

    @property
    def predicted(self) -> NDArray[np.int64]:
        return self.table[:, _PREDICTED].long().numpy()

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of the class that came first."""
        return self.table[:, _CONFIDENCE].numpy()

    @property
    def right(self) -> NDArray[np.float64]:
        """1 where the image's class came first, else 0."""
        return self.table[:, _FIRST].numpy()

    @property
    def probabilities(self) -> NDArray[np.float64] | None:
        rows = self.table[:, _COLUMNS:].numpy()
        return rows if rows.size else None

    @cached_property
    def means(self) -> tuple[float, float, float]:
        """Of the loss, of whether the class came first, and of whether it was among the first five."""
        loss, first, five = self.table[:, 1 : _FIVE + 1].sum(0).div(len(self.table)).tolist()
        return loss, first, five

    @cached_property
    def tables(self) -> dict[str, Any]:
        """``classes``, a row a class, and the ``confusion`` matrix where the classes are few enough to be drawn."""
        return _tables(self.target, self.predicted, self.class_names)


class ClassifyEvaluation:
    """A row an image: its index, its loss, whether its class came first, whether it was among the first five, its
    class, the class that came first and that one's probability; then all probabilities, if predictions are asked for,
    or metrics besides the task's own.

    Sums run over rows sorted by index, so they do not depend on the order of arrival either.
    """

    def __init__(
        self,
        class_names: tuple[str, ...],
        metrics: Sequence[str] | None = None,
        *,
        predictions: bool = False,
        threshold: float | None = None,
    ) -> None:
        self.class_names, self.predictions, self.threshold = class_names, predictions, threshold
        self.metrics = own_metrics(len(class_names)) if metrics is None else metrics
        self.whole = predictions or not set(self.metrics) <= set(METRICS)
        self.places = min(5, len(class_names))
        self._rows: list[Tensor] = []

    def update(self, predictions: Tensor, batch: Batch) -> None:
        logits = predictions.float()
        losses = F.cross_entropy(logits, batch.targets, reduction="none")
        probabilities = logits.softmax(-1)
        # Of logits, which differ where probabilities have become equal.
        of = logits if self.threshold is None else probabilities
        best = ranked(of, self.threshold, self.places)[1]
        places = best == batch.targets[:, None]
        confidence = probabilities.gather(-1, best[:, :1])[:, 0]
        columns = [losses, places[:, 0], places.any(1), batch.targets, best[:, 0], confidence]
        # To the CPU before it becomes float64, which some devices don't have (Apple's MPS).
        rows = torch.stack([column.float() for column in columns], 1).cpu().double()
        extra = [probabilities.cpu().double()] if self.whole else []
        self._rows.append(torch.cat([batch.index[:, None].double().cpu(), rows, *extra], 1))

    def sums(self) -> Tensor:
        return torch.zeros(0)

    def rows(self) -> Tensor:
        """What this process saw, (images, columns) float64."""
        width = _COLUMNS + (len(self.class_names) if self.whole else 0)
        return torch.cat(self._rows) if self._rows else torch.zeros(0, width, dtype=torch.float64)

    def compute(self, sums: Tensor, rows: list[Tensor]) -> EvalResult:
        """Over the rows of all processes: the metrics, and the count of images."""
        table = torch.cat(rows)
        table = table[table[:, _INDEX].argsort()]
        outputs = ClassificationOutputs(table, self.class_names)
        metrics = compute_metrics(self.metrics, outputs) | {"count": float(len(table))}
        if not self.predictions:
            return EvalResult(metrics, outputs.tables)
        return EvalResult(metrics, outputs.tables, self._predictions(table), outputs=outputs)

    def _predictions(self, table: Tensor) -> list[dict[str, Any]]:
        names = self.class_names
        return [
            {
                "index": int(row[_INDEX]),
                "target": names[int(row[_TARGET])],
                "predicted": names[int(row[_PREDICTED])],
                **{
                    f"p({name})": round(value, 6)
                    for name, value in zip(names, row[_COLUMNS:].tolist(), strict=True)
                },
            }
            for row in table
        ]


def ranked(values: Tensor, threshold: float | None, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` highest of ``values`` (B, classes) and their classes; of two classes with a ``threshold`` the
    second comes first from that probability on."""
    if threshold is None:
        return tuple(values.topk(count))  # type: ignore[return-value]
    second = (values[:, 1] >= threshold).long()
    order = torch.stack([second, 1 - second], 1)[:, :count]
    return values.gather(-1, order), order


def _tables(
    target: NDArray[np.int64], predicted: NDArray[np.int64], class_names: tuple[str, ...]
) -> dict[str, Any]:
    """A row a class, and the confusion matrix (true, predicted) where the classes are few enough to be drawn."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    labels = np.arange(len(class_names))
    precision, recall, f1, images = precision_recall_fscore_support(
        target, predicted, labels=labels, zero_division=0.0
    )
    there = (images > 0) | (np.bincount(predicted, minlength=len(labels)) > 0)  # in one of the two
    classes = [
        {
            "class": name,
            "images": int(images[i]),
            "recall": float(recall[i]) if images[i] else None,
            "precision": float(precision[i]) if there[i] else None,
            "f1": float(f1[i]) if there[i] else None,
        }
        for i, name in enumerate(class_names)
    ]
    if len(class_names) > MOST_DRAWN:
        return {"classes": classes}
    return {"classes": classes, "confusion": confusion_matrix(target, predicted, labels=labels).tolist()}


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """The expected calibration error (Guo et al., arXiv 1706.04599, equation 3): how far accuracy is from confidence,
    the mean over 15 bins of equal width, each weighing as many images as fall into it."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in range(BINS)]
    return float(sum(gaps) / len(confidence))


@register_metric("loss", of=ClassificationOutputs, higher_is_better=False, form="number")
def _loss(outputs: ClassificationOutputs) -> float:
    """Mean cross entropy."""
    return outputs.means[0]


@register_metric("accuracy", of=ClassificationOutputs)
def _accuracy(outputs: ClassificationOutputs) -> float:
    return outputs.means[1]


@register_metric("top5", "top-5", of=ClassificationOutputs)
def _top5(outputs: ClassificationOutputs) -> float:
    return outputs.means[2]


@register_metric("balanced_accuracy", of=ClassificationOutputs)
def _balanced_accuracy(outputs: ClassificationOutputs) -> float:
    """The mean of the recalls of the classes that there are."""
    return float(np.mean([row["recall"] for row in outputs.tables["classes"] if row["images"]]))


@register_metric("macro_f1", "macro F1", of=ClassificationOutputs)
def _macro_f1(outputs: ClassificationOutputs) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(outputs.target, outputs.predicted, average="macro", zero_division=0.0))


@register_metric("calibration_error", of=ClassificationOutputs, higher_is_better=False)
def _calibration_error(outputs: ClassificationOutputs) -> float:
    return calibration_error(outputs.confidence, outputs.right)

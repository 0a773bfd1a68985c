"""Judging a classifier image by image, so that it does not matter which process saw which image."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from crosshead.data.base import Batch
from crosshead.tasks.protocol import EvalResult

MOST_DRAWN = 256  # classes of a confusion matrix that is kept
BINS = 15  # of the calibration error, as in its paper
_INDEX, _LOSS, _FIRST, _FIVE, _TARGET, _PREDICTED, _CONFIDENCE, _COLUMNS = range(8)


class ClassifyEvaluation:
    """A row an image: its index, its loss, whether its class came first, whether it was among the first five, its
    class, the class that came first and that one's probability; then all probabilities, if predictions are asked for.

    Sums run over rows sorted by index, so they do not depend on the order of arrival either.
    """

    def __init__(self, class_names: tuple[str, ...], *, predictions: bool = False) -> None:
        self.class_names, self.predictions = class_names, predictions
        self.places = min(5, len(class_names))
        self._rows: list[Tensor] = []

    def update(self, predictions: Tensor, batch: Batch) -> None:
        logits = predictions.float()
        losses = F.cross_entropy(logits, batch.targets, reduction="none")
        best = logits.topk(self.places).indices
        places = best == batch.targets[:, None]
        probabilities = logits.softmax(-1)
        confidence = probabilities.amax(-1)
        columns = [losses, places[:, 0], places.any(1), batch.targets, best[:, 0], confidence]
        # To the CPU before it becomes float64, which some devices don't have (Apple's MPS).
        rows = torch.stack([column.float() for column in columns], 1).cpu().double()
        extra = [probabilities.cpu().double()] if self.predictions else []
        self._rows.append(torch.cat([batch.index[:, None].double().cpu(), rows, *extra], 1))

    def sums(self) -> Tensor:
        return torch.zeros(0)

    def rows(self) -> Tensor:
        """What this process saw, (images, columns) float64."""
        width = _COLUMNS + (len(self.class_names) if self.predictions else 0)
        return torch.cat(self._rows) if self._rows else torch.zeros(0, width, dtype=torch.float64)

    def compute(self, sums: Tensor, rows: list[Tensor]) -> EvalResult:
        """Over the rows of all processes: accuracy, the mean of the classes' recalls, the mean of their F1, top-5
        accuracy where there are more than five classes, the calibration error, mean cross entropy, and the count.

        scikit-learn computes what it has a name for.
        """
        from sklearn.metrics import f1_score

        table = torch.cat(rows)
        table = table[table[:, _INDEX].argsort()]
        count = len(table)
        loss, first, five = table[:, 1 : _FIVE + 1].sum(0).div(count).tolist()
        target, predicted = (table[:, column].long().numpy() for column in (_TARGET, _PREDICTED))
        details = _tables(target, predicted, self.class_names)
        found = [row["recall"] for row in details["classes"] if row["images"]]
        right, confidence = (table[:, column].numpy() for column in (_FIRST, _CONFIDENCE))
        metrics = {
            "accuracy": first,
            "balanced_accuracy": float(np.mean(found)),
            "macro_f1": float(f1_score(target, predicted, average="macro", zero_division=0.0)),
            "calibration_error": calibration_error(confidence, right),
        }
        if len(self.class_names) > 5:
            metrics["top5"] = five
        metrics |= {"loss": loss, "count": float(count)}
        return EvalResult(metrics, details, self._predictions(table) if self.predictions else [])

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

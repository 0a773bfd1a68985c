"""Several labels an image, or none: predictions are logits (B, labels), each label a yes or no of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from crosshead.data.base import Batch, DatasetInfo
from crosshead.data.datasets.contents import Contents
from crosshead.recipe.schema import Recipe
from crosshead.tasks.labelled import USUAL, LabelledTask, answer_or_fault, only_classification
from crosshead.tasks.metrics import compute_metrics, register_metric
from crosshead.tasks.protocol import Answers, EvalResult, Step

METRICS = ("mean_average_precision", "macro_f1", "label_accuracy", "loss")


class MultilabelTask(LabelledTask):
    """Binary cross entropy to train with, the mean over the labels of average precision to judge by."""

    answers: ClassVar[Answers] = "labels"
    dtype, label, wanted = torch.float32, list, "any number of names a picture"
    shown = ("mean_average_precision", "macro_f1")
    losses, counts = ("loss",), ("label_accuracy",)

    def __init__(self, recipe: Recipe, info: DatasetInfo) -> None:
        only_classification(recipe)
        if not info.class_names:
            raise ValueError(f"task.name is multilabel, and {info.name} names no labels: see data.name=csv")
        super().__init__(recipe, info, len(info.class_names))
        self.choose(METRICS, MultilabelOutputs)
        self.label_smoothing = recipe.task.label_smoothing

    def step(self, network: nn.Module, batch: Batch) -> Step:
        logits = network(batch.images).float()
        smoothing = self.label_smoothing
        wanted = batch.targets * (1 - smoothing) + smoothing / 2
        losses = {"loss": F.binary_cross_entropy_with_logits(logits, wanted) * len(batch)}
        if not bool(((batch.targets == 0) | (batch.targets == 1)).all()):
            return Step(losses)  # mixed: no label is just there or not
        right = ((logits.detach() > 0) == (batch.targets > 0.5)).float().mean(-1).sum()
        return Step(losses, {"label_accuracy": right})

    def empty_batch(self) -> Batch:
        return self.blank_batch(torch.zeros(1, self.outputs))

    def evaluation(self, *, predictions: bool = False) -> "MultilabelEvaluation":
        return MultilabelEvaluation(self.info.class_names, self.metrics, predictions=predictions)

    def predictions_of(
        self, model: nn.Module, prepared: list[Tensor], *, top: int | None = None
    ) -> list[dict[str, Any]]:
        """The ``top`` most probable labels; ``given`` says which of them are more probable than not."""
        rows = self.outputs_of(model, prepared).sigmoid()
        return [answer_or_fault({"predictions": self._best(row, top or USUAL)}, row) for row in rows]

    def _best(self, row: Tensor, top: int) -> list[dict[str, Any]]:
        values, indices = row.topk(min(top, len(row)))
        return [
            {
                "class": self.info.class_names[i],
                "index": i,
                "probability": round(value, 6),
                "given": value > 0.5,
            }
            for value, i in zip(values.tolist(), indices.tolist(), strict=True)
        ]

    def format_lines(self, answer: dict[str, Any]) -> list[str]:
        return [
            f"{each['probability']:7.2%}  {each['class']}{'' if each['given'] else '  (not given)'}"
            for each in answer["predictions"]
        ]


class MultilabelEvaluation:
    """A row an image: its index, its loss, its labels, and the probability of each."""

    def __init__(
        self, class_names: tuple[str, ...], metrics: Sequence[str] = METRICS, *, predictions: bool = False
    ) -> None:
        self.class_names, self.metrics, self.predictions = class_names, metrics, predictions
        self._rows: list[Tensor] = []

    def update(self, predictions: Tensor, batch: Batch) -> None:
        logits = predictions.float()
        losses = F.binary_cross_entropy_with_logits(logits, batch.targets, reduction="none").mean(-1)
        columns = torch.cat([losses[:, None], batch.targets, logits.sigmoid()], 1).cpu().double()
        self._rows.append(torch.cat([batch.index[:, None].double().cpu(), columns], 1))

    def sums(self) -> Tensor:
        return torch.zeros(0)

    def rows(self) -> Tensor:
        width = 2 + 2 * len(self.class_names)
        return torch.cat(self._rows) if self._rows else torch.zeros(0, width, dtype=torch.float64)

    def compute(self, sums: Tensor, rows: list[Tensor]) -> EvalResult:
        """Over the rows of all processes: the metrics, the count of images, and a row a label."""
        table = torch.cat(rows)
        table = table[table[:, 0].argsort()]
        outputs = MultilabelOutputs(table, self.class_names)
        metrics = compute_metrics(self.metrics, outputs) | {"count": float(len(table))}
        details = {"classes": outputs.classes}
        return EvalResult(metrics, details, self._predictions(table) if self.predictions else [])

    def _predictions(self, table: Tensor) -> list[dict[str, Any]]:
        names = self.class_names
        return [
            {
                "index": int(row[0]),
                "target": ";".join(name for name, there in zip(names, row[2:], strict=False) if there),
                **{
                    f"p({name})": round(value, 6)
                    for name, value in zip(names, row[2 + len(names) :].tolist(), strict=True)
                },
            }
            for row in table
        ]


@dataclass(frozen=True)
class MultilabelOutputs:
    """What was said of the N images of a split, in the data set's order; ``table`` has a row an image, see
    ``MultilabelEvaluation``."""

    table: Tensor
    class_names: tuple[str, ...]

    @property
    def truth(self) -> NDArray[np.float64]:
        """(N, labels), 1 of a label that the image has."""
        return self.table[:, 2 : 2 + len(self.class_names)].numpy()

    @property
    def score(self) -> NDArray[np.float64]:
        """(N, labels), the probability of each."""
        return self.table[:, 2 + len(self.class_names) :].numpy()

    @property
    def given(self) -> NDArray[np.bool_]:
        """(N, labels), what is more probable than not."""
        return self.score > 0.5

    @cached_property
    def classes(self) -> list[dict[str, Any]]:
        """A row a label; None where a number is undefined. scikit-learn computes them."""
        from sklearn.metrics import average_precision_score, precision_recall_fscore_support

        truth, score, given = self.truth, self.score, self.given
        precision, recall, f1, images = precision_recall_fscore_support(
            truth, given, average=None, zero_division=0.0
        )
        there = [count > 0 or bool(said.any()) for count, said in zip(images, given.T, strict=True)]
        return [
            {
                "class": name,
                "images": int(images[i]),
                "average precision": float(average_precision_score(truth[:, i], score[:, i]))
                if images[i]
                else None,
                "recall": float(recall[i]) if images[i] else None,
                "precision": float(precision[i]) if there[i] else None,
                "f1": float(f1[i]) if images[i] else None,
            }
            for i, name in enumerate(self.class_names)
        ]

    def mean(self, column: str) -> float:
        """Of ``classes``, over the labels that at least one image has."""
        known = [row[column] for row in self.classes if row["images"]]
        return float(np.mean(known)) if known else math.nan


def _no_label(held: Contents) -> str | None:
    return None if held.counts.any() else "no label"


@register_metric("mean_average_precision", of=MultilabelOutputs, lacks=_no_label)
def _mean_average_precision(outputs: MultilabelOutputs) -> float:
    return outputs.mean("average precision")


@register_metric("macro_f1", "macro F1", of=MultilabelOutputs, lacks=_no_label)
def _macro_f1(outputs: MultilabelOutputs) -> float:
    """Of labels given at a probability of one half."""
    return outputs.mean("f1")


@register_metric("label_accuracy", "accuracy over labels", of=MultilabelOutputs)
def _label_accuracy(outputs: MultilabelOutputs) -> float:
    """The share of single decisions that are right."""
    return float((outputs.given == outputs.truth).mean())


@register_metric("loss", of=MultilabelOutputs, higher_is_better=False, form="number")
def _loss(outputs: MultilabelOutputs) -> float:
    return float(outputs.table[:, 1].mean())

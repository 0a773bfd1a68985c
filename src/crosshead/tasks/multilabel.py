"""Several labels an image, or none: predictions are logits (B, labels), each label a yes or no of its own."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosshead.data.base import Batch, DatasetInfo
from crosshead.data.datasets.contents import Contents
from crosshead.recipe.schema import Recipe
from crosshead.tasks.labelled import USUAL, LabelledTask, answer_or_fault, only_classification
from crosshead.tasks.metrics import selecting
from crosshead.tasks.protocol import EvalResult, Step


class MultilabelTask(LabelledTask):
    """Binary cross entropy to train with, the mean over the labels of average precision to judge by."""

    dtype, label, wanted = torch.float32, list, "any number of names a picture"
    shown = ("mean_average_precision", "macro_f1")
    losses, counts = ("loss",), ("label_accuracy",)

    def __init__(self, recipe: Recipe, info: DatasetInfo) -> None:
        only_classification(recipe)
        if not info.class_names:
            raise ValueError(f"task.name is multilabel, and {info.name} names no labels: see data.name=csv")
        super().__init__(recipe, info, len(info.class_names))
        known = ("mean_average_precision", "macro_f1", "label_accuracy", "loss")
        self.primary = selecting(recipe.task.select_by, known)
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

    def undefined(self, held: Contents) -> str | None:
        of_labels = self.primary.name in ("mean_average_precision", "macro_f1")
        return "no label" if of_labels and not held.counts.any() else None

    def empty_batch(self) -> Batch:
        return self.blank_batch(torch.zeros(1, self.outputs))

    def evaluation(self, *, predictions: bool = False) -> "MultilabelEvaluation":
        return MultilabelEvaluation(self.info.class_names, predictions=predictions)

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

    def __init__(self, class_names: tuple[str, ...], *, predictions: bool = False) -> None:
        self.class_names, self.predictions = class_names, predictions
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
        """Mean average precision and mean F1 (of labels given at a probability of one half) over the labels that at
        least one image has, and the share of single decisions that are right. scikit-learn computes the first two."""
        from sklearn.metrics import average_precision_score, precision_recall_fscore_support

        table = torch.cat(rows)
        table = table[table[:, 0].argsort()]
        labels, count = len(self.class_names), len(table)
        truth, score = (table[:, 2 : 2 + labels].numpy(), table[:, 2 + labels :].numpy())
        given = score > 0.5
        precision, recall, f1, images = precision_recall_fscore_support(
            truth, given, average=None, zero_division=0.0
        )
        average = [
            float(average_precision_score(truth[:, i], score[:, i])) if images[i] else None
            for i in range(labels)
        ]
        known = [value for value in average if value is not None]
        there = [count > 0 or bool(said.any()) for count, said in zip(images, given.T, strict=True)]
        classes = [
            {
                "class": name,
                "images": int(images[i]),
                "average precision": average[i],
                "recall": float(recall[i]) if images[i] else None,
                "precision": float(precision[i]) if there[i] else None,
                "f1": float(f1[i]) if images[i] else None,
            }
            for i, name in enumerate(self.class_names)
        ]
        metrics = {
            "mean_average_precision": float(np.mean(known)) if known else math.nan,
            "macro_f1": float(np.mean(f1[images > 0])) if known else math.nan,
            "label_accuracy": float((given == truth).mean()),
            "loss": float(table[:, 1].mean()),
            "count": float(count),
        }
        return EvalResult(metrics, {"classes": classes}, self._predictions(table) if self.predictions else [])

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

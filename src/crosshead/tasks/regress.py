"""A number an image: predictions and targets are in standard deviations from the mean of the training numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crosshead.data.base import Batch, DatasetInfo, ImageSet
from crosshead.data.batching.labelled import EvaluationBatches, TrainingBatches
from crosshead.data.datasets.contents import Contents
from crosshead.recipe.schema import Recipe
from crosshead.tasks.labelled import LabelledTask, answer_or_fault, only_classification
from crosshead.tasks.metrics import compute_metrics, register_metric
from crosshead.tasks.protocol import Answers, EvalResult, Step

METRICS = ("mae", "rmse", "r2", "loss")


class RegressTask(LabelledTask):
    """Squared error to train with, the mean absolute error, in the numbers' own unit, to judge by."""

    answers: ClassVar[Answers] = "number"
    dtype, label, wanted = torch.float32, float, "one number a picture"
    shown = ("mae", "rmse", "r2")
    losses, counts = ("loss",), ()

    def __init__(self, recipe: Recipe, info: DatasetInfo) -> None:
        only_classification(recipe)
        if info.scale is None:
            raise ValueError(
                f"task.name is regress, and {info.name} has no number a picture: see data.name=csv"
            )
        if recipe.augment.mixup or recipe.augment.cutmix:
            raise ValueError(
                "task.name is regress, and mixing needs classes: set augment.mixup=0 augment.cutmix=0"
            )
        super().__init__(recipe, info, 1)
        self.choose(METRICS, RegressionOutputs)
        self.mean, self.std = info.scale

    def training_batches(self, images: ImageSet, *, seed: int, epoch: int) -> TrainingBatches:
        batches = super().training_batches(images, seed=seed, epoch=epoch)
        batches.read_target = self._standardised
        return batches

    def evaluation_batches(self, images: ImageSet) -> EvaluationBatches:
        batches = super().evaluation_batches(images)
        batches.read_target = self._standardised
        return batches

    def _standardised(self, number: float) -> float:
        """In Python's double precision: in float32 1e8 and 1e8 + 3 are one number."""
        return (number - self.mean) / self.std

    def step(self, network: nn.Module, batch: Batch) -> Step:
        errors = network(batch.images).float()[:, 0] - batch.targets
        return Step({"loss": errors.square().sum()})

    def empty_batch(self) -> Batch:
        return self.blank_batch(torch.zeros(1))

    def evaluation(self, *, predictions: bool = False) -> "RegressEvaluation":
        return RegressEvaluation(self.mean, self.std, self.metrics, predictions=predictions)

    def predictions_of(
        self, model: nn.Module, prepared: list[Tensor], *, top: int | None = None
    ) -> list[dict[str, Any]]:
        found = self.outputs_of(model, prepared)[:, 0].double() * self.std + self.mean
        return [answer_or_fault({"value": value.item()}, value) for value in found]

    def format_lines(self, answer: dict[str, Any]) -> list[str]:
        return ["-" if answer["value"] is None else f"{answer['value']:.6g}"]


class RegressEvaluation:
    """A row an image: its index, its number, and the number that was predicted."""

    def __init__(
        self, mean: float, std: float, metrics: Sequence[str] = METRICS, *, predictions: bool = False
    ) -> None:
        self.mean, self.std, self.metrics, self.predictions = mean, std, metrics, predictions
        self._rows: list[Tensor] = []

    def update(self, predictions: Tensor, batch: Batch) -> None:
        columns = torch.stack([batch.targets.float(), predictions.float()[:, 0]], 1).cpu().double()
        columns = columns * self.std + self.mean
        self._rows.append(torch.cat([batch.index[:, None].double().cpu(), columns], 1))

    def sums(self) -> Tensor:
        return torch.zeros(0)

    def rows(self) -> Tensor:
        return torch.cat(self._rows) if self._rows else torch.zeros(0, 3, dtype=torch.float64)

    def compute(self, sums: Tensor, rows: list[Tensor]) -> EvalResult:
        """Over the rows of all processes: the metrics, and the count of images."""
        table = torch.cat(rows)
        table = table[table[:, 0].argsort()]
        outputs = RegressionOutputs(table[:, 1].numpy(), table[:, 2].numpy(), self.std)
        metrics = compute_metrics(self.metrics, outputs) | {"count": float(len(table))}
        rows_kept = [{"index": int(i), "target": t, "predicted": p} for i, t, p in table.tolist()]
        return EvalResult(metrics, {}, rows_kept if self.predictions else [])


@dataclass(frozen=True)
class RegressionOutputs:
    """The numbers of the N images of a split and those that were predicted, (N,), in the data set's order and the
    numbers' unit; ``std`` is of the training numbers."""

    truth: NDArray[np.float64]
    predicted: NDArray[np.float64]
    std: float


@register_metric("mae", "mean absolute error", of=RegressionOutputs, higher_is_better=False, form="number")
def _mae(outputs: RegressionOutputs) -> float:
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(outputs.truth, outputs.predicted))


@register_metric(
    "rmse", "root mean squared error", of=RegressionOutputs, higher_is_better=False, form="number"
)
def _rmse(outputs: RegressionOutputs) -> float:
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(outputs.truth, outputs.predicted))


def _no_variance(held: Contents) -> str | None:
    return "no two numbers that differ" if held.values < 2 else None


@register_metric("r2", "R²", of=RegressionOutputs, form="number", lacks=_no_variance)
def _r2(outputs: RegressionOutputs) -> float:
    """The share of variance that is explained; of one number, or of equal ones, there is none to explain."""
    from sklearn.metrics import r2_score

    differ = len(set(outputs.truth.tolist())) > 1
    return float(r2_score(outputs.truth, outputs.predicted)) if differ else math.nan


@register_metric("loss", of=RegressionOutputs, higher_is_better=False, form="number")
def _loss(outputs: RegressionOutputs) -> float:
    """The loss that is trained with."""
    return float((((outputs.predicted - outputs.truth) / outputs.std) ** 2).mean())

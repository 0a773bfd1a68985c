"""A number an image: predictions and targets are in standard deviations from the mean of the training numbers."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from crosshead.data.base import Batch, DatasetInfo, ImageSet
from crosshead.data.batching.labelled import EvaluationBatches, TrainingBatches
from crosshead.data.datasets.contents import Contents
from crosshead.recipe.schema import Recipe
from crosshead.tasks.labelled import LabelledTask, answer_or_fault, only_classification
from crosshead.tasks.metrics import selecting
from crosshead.tasks.protocol import EvalResult, Step


class RegressTask(LabelledTask):
    """Squared error to train with, the mean absolute error, in the numbers' own unit, to judge by."""

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
        self.primary = selecting(recipe.task.select_by, ("mae", "rmse", "r2", "loss"))
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

    def undefined(self, held: Contents) -> str | None:
        return "no two numbers that differ" if self.primary.name == "r2" and held.values < 2 else None

    def empty_batch(self) -> Batch:
        return self.blank_batch(torch.zeros(1))

    def evaluation(self, *, predictions: bool = False) -> "RegressEvaluation":
        return RegressEvaluation(self.mean, self.std, predictions=predictions)

    def predictions_of(
        self, model: nn.Module, prepared: list[Tensor], *, top: int | None = None
    ) -> list[dict[str, Any]]:
        found = self.outputs_of(model, prepared)[:, 0].double() * self.std + self.mean
        return [answer_or_fault({"value": value.item()}, value) for value in found]

    def format_lines(self, answer: dict[str, Any]) -> list[str]:
        return ["-" if answer["value"] is None else f"{answer['value']:.6g}"]


class RegressEvaluation:
    """A row an image: its index, its number, and the number that was predicted."""

    def __init__(self, mean: float, std: float, *, predictions: bool = False) -> None:
        self.mean, self.std, self.predictions = mean, std, predictions
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
        """Mean absolute and root mean squared error in the numbers' unit, the share of variance that is explained, and
        the loss that is trained with. scikit-learn computes the first three."""
        from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

        table = torch.cat(rows)
        table = table[table[:, 0].argsort()]
        count = len(table)
        truth, found = table[:, 1].numpy(), table[:, 2].numpy()
        metrics = {
            "mae": float(mean_absolute_error(truth, found)),
            "rmse": float(root_mean_squared_error(truth, found)),
            # Of one number, or of equal ones, there is no variance to explain.
            "r2": float(r2_score(truth, found)) if len(set(truth.tolist())) > 1 else math.nan,
            "loss": float((((found - truth) / self.std) ** 2).mean()),
            "count": float(count),
        }
        rows_kept = [{"index": int(i), "target": t, "predicted": p} for i, t, p in table.tolist()]
        return EvalResult(metrics, {}, rows_kept if self.predictions else [])

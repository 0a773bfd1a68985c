"""A number an image: predictions are (B, 1), in standard deviations from the mean of the training numbers."""

from typing import Any

import torch
from torch import Tensor, nn

from crosshead.data.loading.batch import Batch
from crosshead.data.sets.common import DatasetInfo
from crosshead.recipe.schema import Recipe
from crosshead.tasks.labelled import LabelledTask, only_classification
from crosshead.tasks.metrics import selecting
from crosshead.tasks.protocol import Judgement, Step


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

    def step(self, network: nn.Module, batch: Batch) -> Step:
        errors = network(batch.images).float()[:, 0] - (batch.targets - self.mean) / self.std
        return Step({"loss": errors.square().sum()})

    def blank(self) -> Batch:
        return self.blank_batch(torch.full((1,), self.mean))

    def evaluation(self, *, predictions: bool = False) -> "RegressEvaluation":
        return RegressEvaluation(self.mean, self.std, predictions=predictions)

    def answers(
        self, model: nn.Module, prepared: list[Tensor], *, top: int | None = None
    ) -> list[dict[str, Any]]:
        found = self.outputs_of(model, prepared)[:, 0] * self.std + self.mean
        return [{"value": value} for value in found.tolist()]

    def lines(self, answer: dict[str, Any]) -> list[str]:
        return [f"{answer['value']:.6g}"]


class RegressEvaluation:
    """A row an image: its index, its number, and the number that was predicted."""

    def __init__(self, mean: float, std: float, *, predictions: bool = False) -> None:
        self.mean, self.std, self.predictions = mean, std, predictions
        self._rows: list[Tensor] = []

    def update(self, predictions: Tensor, batch: Batch) -> None:
        columns = torch.stack([batch.targets.float(), predictions.float()[:, 0]], 1).cpu().double()
        columns[:, 1] = columns[:, 1] * self.std + self.mean
        self._rows.append(torch.cat([batch.index[:, None].double().cpu(), columns], 1))

    def sums(self) -> Tensor:
        return torch.zeros(0)

    def rows(self) -> Tensor:
        return torch.cat(self._rows) if self._rows else torch.zeros(0, 3, dtype=torch.float64)

    def compute(self, sums: Tensor, rows: list[Tensor]) -> Judgement:
        """Mean absolute and root mean squared error in the numbers' unit, the share of variance that is explained, and
        the loss that is trained with. scikit-learn computes the first three."""
        from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

        table = torch.cat(rows)
        table = table[table[:, 0].argsort()]
        count = len(table)
        if not count:
            return Judgement({"loss": 0.0, "count": 0.0})
        truth, found = table[:, 1].numpy(), table[:, 2].numpy()
        metrics = {
            "mae": float(mean_absolute_error(truth, found)),
            "rmse": float(root_mean_squared_error(truth, found)),
            "loss": float((((found - truth) / self.std) ** 2).mean()),
            "count": float(count),
        }
        if count > 1:
            metrics["r2"] = float(r2_score(truth, found))
        rows_kept = [{"index": int(i), "target": t, "predicted": p} for i, t, p in table.tolist()]
        return Judgement(metrics, {}, rows_kept if self.predictions else [])

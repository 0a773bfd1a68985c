"""Classification: predictions are logits (B, classes)."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosshead.data.base import Batch, DatasetInfo, ImageSet
from crosshead.data.batching.labelled import TrainingBatches
from crosshead.recipe.schema import Recipe
from crosshead.tasks.augmented import mean_logits
from crosshead.tasks.classify.evaluation import (
    METRICS,
    ClassificationOutputs,
    ClassifyEvaluation,
    own_metrics,
    ranked,
)
from crosshead.tasks.labelled import USUAL, LabelledTask, answer_or_fault
from crosshead.tasks.losses import class_weights, focal_loss
from crosshead.tasks.protocol import Answers, Step


class ClassifyTask(LabelledTask):
    """Cross entropy to train with, whose classes may be weighted and whose easy images may weigh less; accuracy to
    judge by, beside what it hides."""

    answers: ClassVar[Answers] = "classes"
    shown = ("accuracy", "balanced_accuracy")
    losses, counts = ("loss",), ("accuracy",)

    def __init__(self, recipe: Recipe, info: DatasetInfo) -> None:
        classes = len(info.class_names)
        if classes < 2:
            raise ValueError(
                f"the data has {classes} class, and there is nothing to tell apart: expected one folder a class, "
                "two at least; data.root is to be the folder above them"
            )
        super().__init__(recipe, info, classes)
        own = own_metrics(classes)
        self.choose(own, ClassificationOutputs, without=[name for name in METRICS if name not in own])
        self.label_smoothing, self.focal_gamma = recipe.task.label_smoothing, recipe.task.focal_gamma
        self.class_weights: Tensor | None = None
        self.temperature, self.threshold = recipe.task.temperature, recipe.task.threshold
        if self.threshold is not None and classes != 2:
            raise ValueError(
                f"task.threshold is {self.threshold:g}, which is for two classes, and there are {classes}; leave it out"
            )

    def training_batches(self, images: ImageSet, *, seed: int, epoch: int) -> TrainingBatches:
        wanted = self.recipe.task.class_weights
        if wanted is not None and self.class_weights is None:
            self.class_weights = class_weights(wanted, images.targets, self.info.class_names)
        return super().training_batches(images, seed=seed, epoch=epoch)

    def step(self, network: nn.Module, batch: Batch) -> Step:
        logits = network(batch.images)
        losses = {"loss": self.loss(logits, batch) * len(batch)}
        right = self.hits(logits.detach(), batch)
        return Step(losses, {} if right is None else {"accuracy": right})

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        """Mean cross entropy over the batch, in float32, against indices (B,) or probabilities (B, classes).

        Label smoothing applies to both; it moves its share of the target evenly onto all classes. With class weights
        it is a mean over images still, not over weights: those have the mean 1 in the training set.
        """
        logits, smoothing = predictions.float(), self.label_smoothing
        weight = None if self.class_weights is None else self.class_weights.to(logits.device)
        if self.focal_gamma is not None:
            gamma = self.focal_gamma
            return focal_loss(logits, batch.targets, gamma=gamma, smoothing=smoothing, weight=weight).mean()
        if weight is None:
            return F.cross_entropy(logits, batch.targets, label_smoothing=smoothing)
        losses = F.cross_entropy(logits, batch.targets, weight, label_smoothing=smoothing, reduction="none")
        return losses.mean()

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._cooled(model, batch.images)

    def outputs_of(self, model: nn.Module, prepared: list[Tensor]) -> Tensor:
        with torch.inference_mode():
            return (
                self._cooled(model, torch.stack(prepared).to(next(model.parameters()).device)).float().cpu()
            )

    def _cooled(self, model: nn.Module, images: Tensor) -> Tensor:
        """Logits of images (B, C, H, W) at the recipe's temperature; of several views their mean's."""
        views = self.recipe.task.tta
        logits: Tensor = mean_logits(model, images, views) if views else model(images)
        return logits if self.temperature == 1 else logits.float() / self.temperature

    def hits(self, predictions: Tensor, batch: Batch) -> Tensor | None:
        """The number of images classified right, a scalar; None where targets are mixed and no one class is."""
        if batch.targets.ndim > 1:
            return None
        return (predictions.argmax(-1) == batch.targets).sum()

    def empty_batch(self) -> Batch:
        return self.blank_batch(torch.zeros(1, dtype=torch.int64))

    def evaluation(self, *, predictions: bool = False) -> ClassifyEvaluation:
        return ClassifyEvaluation(
            self.info.class_names, self.metrics, predictions=predictions, threshold=self.threshold
        )

    def predictions_of(
        self, model: nn.Module, prepared: list[Tensor], *, top: int | None = None
    ) -> list[dict[str, Any]]:
        """The ``top`` most probable classes, the first one the most probable; of two classes with a threshold the first
        one is what is said by it."""
        rows = self.outputs_of(model, prepared).softmax(dim=-1)
        return [answer_or_fault({"predictions": self._best(row, top or USUAL)}, row) for row in rows]

    def _best(self, probabilities: Tensor, top: int) -> list[dict[str, Any]]:
        values, indices = ranked(probabilities[None], self.threshold, min(top, len(probabilities)))
        values, indices = values[0], indices[0]
        return [
            {"class": self.info.class_names[index], "index": index, "probability": round(value, 6)}
            for value, index in zip(values.tolist(), indices.tolist(), strict=True)
        ]

    def format_lines(self, answer: dict[str, Any]) -> list[str]:
        return [f"{each['probability']:7.2%}  {each['class']}" for each in answer["predictions"]]

"""What the tasks share whose images all have one size, and whose models give one vector an image."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from crosshead import models
from crosshead.data.base import Batch, DatasetInfo, ImageSet
from crosshead.data.batching.labelled import EvaluationBatches, TrainingBatches
from crosshead.data.datasets.contents import Contents
from crosshead.data.transforms.pipeline import evaluation_transform, image_size
from crosshead.recipe.schema import Recipe
from crosshead.tasks.metrics import chosen_metrics
from crosshead.tasks.protocol import NOT_FINITE, Answers

USUAL = 5  # classes that an answer names unless another number is asked for


class LabelledTask:
    """The model gives ``outputs`` numbers an image; a label is read as ``dtype``."""

    targets: ClassVar[Literal["label", "map", "objects"]] = "label"
    answers: ClassVar[Answers]
    whole_pictures: ClassVar[bool] = False
    takes_windows: ClassVar[bool] = False
    dtype = torch.int64
    label: type | tuple[type, ...] = (
        int,
        np.integer,
    )  # how a data set of this task gives the label of a picture
    wanted = "one class a picture"
    shown: tuple[str, ...] = ()

    def __init__(self, recipe: Recipe, info: DatasetInfo, outputs: int) -> None:
        self.recipe, self.info, self.outputs = recipe, info, outputs

    def choose(self, own: Sequence[str], of: type, without: Sequence[str] = ()) -> None:
        """Sets the metrics: which are computed, which selects, and which are told; see ``chosen_metrics``."""
        self.primary, self.metrics = chosen_metrics(self.recipe.task, own, of, without)
        self.shown = (*self.shown, *(name for name in self.metrics if name not in own))
        self.evaluates = of

    def build_model(self, *, from_weights: bool = True) -> nn.Module:
        return models.build_model(
            self.recipe.model,
            num_classes=self.outputs,
            in_chans=self.info.channels,
            img_size=image_size(self.recipe.data),
            from_weights=from_weights,
        )

    def training_batches(self, images: ImageSet, *, seed: int, epoch: int) -> TrainingBatches:
        self._check_labels(images)
        data, augment = self.recipe.data, self.recipe.augment
        return TrainingBatches(images, data, augment, self.info, seed=seed, epoch=epoch, dtype=self.dtype)

    def evaluation_batches(self, images: ImageSet) -> EvaluationBatches:
        self._check_labels(images)
        return EvaluationBatches(images, self.recipe.data, self.info, self.dtype)

    def _check_labels(self, images: ImageSet) -> None:
        if images.counted != "images":
            raise ValueError(
                f"the pictures of data.name={self.recipe.data.name} have maps or objects in place of a label, and "
                f"task.name={self.recipe.task.name} learns labels: set task.name=segment (and model.segmenter), or "
                "take other data"
            )
        if len(images) and not isinstance(images.targets[0], self.label):
            raise ValueError(
                f"task.name is {self.recipe.task.name}, and the data set {self.info.name} has labels of another kind: "
                f"expected {self.wanted}"
            )

    def blank_images(self) -> Tensor:
        """(1, C, H, W) of zeros."""
        return torch.zeros(1, self.info.channels, *image_size(self.recipe.data))

    def blank_batch(self, targets: Tensor) -> Batch:
        """The blank image, which is none of the data set's, and its ``targets``."""
        return Batch(self.blank_images(), targets, torch.zeros(0, dtype=torch.int64))

    def loss_divisors(self, batch: Batch) -> None:
        return None

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.images)

    def undefined(self, held: Contents) -> str | None:
        return self.primary.lacks(self.evaluates, held)

    def limits(self, held: Contents) -> list[str]:
        return []

    def finite(self, predictions: Tensor) -> list[bool]:
        return predictions.isfinite().all(-1).tolist()

    def example(self, model: nn.Module) -> tuple[nn.Module, tuple[Any, ...]]:
        return model, (self.blank_images(),)

    def preprocess(self, picture: Image.Image) -> Tensor:
        return evaluation_transform(self.recipe.data, self.info)(picture)

    def outputs_of(self, model: nn.Module, prepared: list[Tensor]) -> Tensor:
        """(B, outputs) float32 on the CPU."""
        with torch.inference_mode():
            return model(torch.stack(prepared).to(next(model.parameters()).device)).float().cpu()


def answer_or_fault(answer: dict[str, Any], outputs: Tensor) -> dict[str, Any]:
    """``answer``, read from the ``outputs`` for one picture; nothing in its place where these are no numbers."""
    if outputs.isfinite().all():
        return answer
    return {key: [] if isinstance(said, list) else None for key, said in answer.items()} | {
        "fault": NOT_FINITE
    }


def only_classification(recipe: Recipe) -> None:
    """ValueError where a recipe of another task says what only classification knows."""
    task, data = recipe.task, recipe.data
    said = {
        "task.class_weights": task.class_weights,
        "task.focal_gamma": task.focal_gamma,
        "data.sampling": data.sampling if data.sampling == "balanced" else None,
    }
    if wrong := [key for key, value in said.items() if value is not None]:
        raise ValueError(f"{' and '.join(wrong)} is for task.name=classify, and this one is {task.name}")

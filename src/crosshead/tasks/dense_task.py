"""What the tasks share whose images are whole pictures of any size, and whose models head a backbone's maps."""

from abc import abstractmethod
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from crosshead import models
from crosshead.data.base import DatasetInfo, ImageSet
from crosshead.data.batching.batches import Batches, EpochBatches
from crosshead.data.transforms.pipeline import image_size
from crosshead.models.foreign_heads import load_foreign_heads
from crosshead.models.pyramid import Maps
from crosshead.recipe.schema import DetectorConfig, Recipe, SegmenterConfig

# Of the recipe's augmentation what is for pictures with one label.
FOR_LABELS = ("crop_scale", "randaugment", "color_jitter", "erasing", "cutmix")


class DenseTask:
    """A task gives its batches (``training``, ``evaluating``), how a picture is prepared (``whole``), and its head."""

    whole_pictures: ClassVar[bool] = True
    takes_windows: ClassVar[bool] = True
    training: ClassVar[Callable[..., EpochBatches[Any]]]
    evaluating: ClassVar[Callable[..., Batches[Any]]]
    whole: ClassVar[Callable[..., Tensor]]

    def __init__(
        self, recipe: Recipe, info: DatasetInfo, settings: DetectorConfig | SegmenterConfig | None
    ) -> None:
        assert settings is not None
        if recipe.task.window and recipe.train.parallel == "shards":
            raise ValueError(
                "task.window and train.parallel=shards don't go together: processes would call the model unequally "
                "often"
            )
        self.recipe, self.info, self.settings = recipe, info, settings

    @abstractmethod
    def build_head(self, maps: Maps, classes: int) -> nn.Module:
        """The model: the recipe's head on ``maps`` of its backbone."""

    @abstractmethod
    def check_images(self, images: ImageSet) -> ImageSet:
        """``images`` as the task takes them. ValueError where they have not what it learns from."""

    def weights_by_name(self, what: str) -> Tensor | None:
        """``task.class_weights`` (classes,), 1 where nothing is said; None without any. ``what`` they weigh."""
        given, names = self.recipe.task.class_weights or {}, self.info.class_names
        if not isinstance(given, dict):
            raise ValueError(
                f"task.class_weights is {given!r}, and task.name {self.recipe.task.name}: expected weights of {what} "
                "by class name"
            )
        for name in given:
            if name not in names:
                near = get_close_matches(name, names, n=1, cutoff=0.0)
                raise ValueError(f"task.class_weights: no class {name!r}; the nearest is {near[0]!r}")
        return torch.tensor([given.get(name, 1.0) for name in names]) if given else None

    def build_model(self, *, from_weights: bool = True) -> nn.Module:
        backbone = models.build_backbone(
            self.recipe.model, in_chans=self.info.channels, from_weights=from_weights
        )
        settings = self.settings
        maps = Maps(
            backbone,
            out_indices=settings.out_indices,
            window=settings.window,
            global_blocks=settings.global_blocks,
        )
        model = self.build_head(maps, len(self.info.class_names))
        if from_weights and self.recipe.model.init_from:
            load_foreign_heads(model, self.recipe.model.init_from)
        return model

    def training_batches(self, images: ImageSet, *, seed: int, epoch: int) -> EpochBatches[Any]:
        data, augment = self.recipe.data, self.recipe.augment
        return type(self).training(
            self.check_images(images), data, augment, self.info, seed=seed, epoch=epoch
        )

    def evaluation_batches(self, images: ImageSet) -> Batches[Any]:
        return type(self).evaluating(self.check_images(images), self.recipe.data, self.info, self.recipe.task)

    def blank_image(self, count: int = 1) -> Tensor:
        """(count, C, H, W) of zeros."""
        return torch.zeros(count, self.info.channels, *image_size(self.recipe.data))

    def preprocess(self, picture: Image.Image) -> tuple[Tensor, tuple[int, int]]:
        """The picture as the model takes it, and its own (height, width)."""
        image = type(self).whole(picture, self.recipe.data, self.info, self.recipe.task)
        return image, (picture.height, picture.width)


def refuse_augmentation(recipe: Recipe, keys: tuple[str, ...], why: str) -> None:
    """ValueError where the recipe sets one of ``keys`` of its augmentation."""
    if stray := [f"augment.{key}" for key in keys if getattr(recipe.augment, key)]:
        raise ValueError(f"{', '.join(stray)}: {why}")

"""Batches of pictures of one size, each with a label: a class, several, or a number."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from crosshead.data.base import ArrayImages, Batch, DatasetInfo, ImageSet
from crosshead.data.batching.batches import Batches, EpochBatches
from crosshead.data.batching.order import Place, balanced_order
from crosshead.data.random import Indices, keys, seeded_globals
from crosshead.data.transforms import views
from crosshead.data.transforms.composing import Mixing
from crosshead.data.transforms.pipeline import (
    evaluation_transform,
    fit,
    image_size,
    normalise,
    training_transform,
)
from crosshead.recipe.schema import AugmentConfig, DataConfig


def _as_it_is(target: Any) -> Any:
    return target


class TrainingBatches(EpochBatches[ImageSet]):
    """Augmented and mixed batches of one epoch; ``read_target`` makes of a picture's target what a model learns."""

    def __init__(
        self,
        images: ImageSet,
        data: DataConfig,
        augment: AugmentConfig,
        info: DatasetInfo,
        *,
        seed: int,
        epoch: int,
        dtype: torch.dtype = torch.int64,
    ) -> None:
        super().__init__(images, data, seed=seed, epoch=epoch)
        self.augment, self.info, self.dtype = augment, info, dtype
        self.read_target: Callable[[Any], Any] = _as_it_is
        self.transform = training_transform(data, augment, info)
        self.mixing = Mixing(augment, len(info.class_names))

    def __getitem__(self, place: Place) -> Batch:
        position, indices = place
        drawn = self.drawn(place)
        one_pass = views.serves(self.images, self.augment)
        batch = self._views(indices, drawn) if one_pass else self._one_by_one(indices, drawn)
        mixed, targets = self.mixing(
            batch.images, batch.targets, seed=self.seed, epoch=self.epoch, position=position
        )
        return replace(batch, images=mixed, targets=targets)

    def order(self, used: int) -> Indices:
        if self.data.sampling != "balanced":
            return super().order(used)
        return balanced_order(used, self.images.targets, seed=self.seed, epoch=self.epoch)

    def _views(self, indices: Indices, drawn: Indices) -> Batch:
        assert isinstance(self.images, ArrayImages)
        pixels = self.images.pixels[torch.from_numpy(indices)]
        moved = views.random_views(
            pixels, self.data, self.augment, self.info, seed=self.seed, epoch=self.epoch, index=drawn
        )
        return labelled(self.images, moved, indices, [], self.dtype, self.read_target)

    def _one_by_one(self, indices: Indices, drawn: Indices) -> Batch:
        own = keys("augment", self.seed, self.epoch, drawn)

        def view(k: int, i: int) -> Tensor:
            seed_all(int(own[k]))
            return self.transform(self.images.load(i))

        with seeded_globals() as seed_all:
            tensors, kept, skipped = self.read(indices, view)
        return labelled(
            self.images, stacked(tensors, self.data, self.info), kept, skipped, self.dtype, self.read_target
        )


class EvaluationBatches(Batches[ImageSet]):
    """Batches without any randomness; ``read_target`` as of training."""

    def __init__(
        self, images: ImageSet, data: DataConfig, info: DatasetInfo, dtype: torch.dtype = torch.int64
    ) -> None:
        super().__init__(images, data)
        self.info, self.dtype = info, dtype
        self.read_target: Callable[[Any], Any] = _as_it_is
        self.transform = evaluation_transform(data, info)

    def __getitem__(self, place: Place) -> Batch:
        indices = place[1]
        if isinstance(self.images, ArrayImages):
            pixels = fit(self.images.pixels[torch.from_numpy(indices)], self.data, self.data.eval_resize)
            return labelled(
                self.images, normalise(pixels, self.info), indices, [], self.dtype, self.read_target
            )
        tensors, kept, skipped = self.read(indices, lambda k, i: self.transform(self.images.load(i)))
        return labelled(
            self.images, stacked(tensors, self.data, self.info), kept, skipped, self.dtype, self.read_target
        )


def labelled(
    images: ImageSet,
    tensors: Tensor,
    index: Indices,
    skipped: list[tuple[str, str]],
    dtype: torch.dtype,
    read_target: Callable[[Any], Any] = _as_it_is,
) -> Batch:
    """The batch of the pictures ``index``, whose ``tensors`` (B, C, H, W) are ready."""
    return Batch(
        images=tensors,
        targets=torch.tensor([read_target(images.targets[i]) for i in index], dtype=dtype),
        index=torch.from_numpy(index),
        names=tuple(images.name(i) for i in index),
        skipped=tuple(skipped),
    )


def stacked(tensors: list[Tensor], data: DataConfig, info: DatasetInfo) -> Tensor:
    """(B, C, H, W), also where B is 0."""
    return torch.stack(tensors) if tensors else torch.empty(0, info.channels, *image_size(data))

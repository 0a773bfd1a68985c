"""Batches of pictures with maps."""

import numpy as np
import torch
from torch import Tensor

from crosshead.data.base import Batch, DatasetInfo
from crosshead.data.batching.batches import Batches, EpochBatches
from crosshead.data.batching.order import Place
from crosshead.data.datasets.mapped import MapSet
from crosshead.data.random import keys, seeded_globals
from crosshead.data.transforms.maps import MapAugmentation, whole_picture
from crosshead.data.transforms.pipeline import image_size
from crosshead.recipe.schema import AugmentConfig, DataConfig, TaskConfig


class TrainingMaps(EpochBatches[MapSet]):
    """Pieces of ``data.image_size``: images (B, C, H, W), targets (B, H, W) uint8."""

    def __init__(
        self,
        images: MapSet,
        data: DataConfig,
        augment: AugmentConfig,
        info: DatasetInfo,
        *,
        seed: int,
        epoch: int,
    ) -> None:
        super().__init__(images, data, seed=seed, epoch=epoch)
        self.info = info
        self.transform = MapAugmentation(data, augment, info)

    def __getitem__(self, place: Place) -> Batch:
        indices = place[1]
        own = keys("augment", self.seed, self.epoch, indices)

        def piece(k: int, i: int) -> tuple[Tensor, Tensor]:
            seed_all(int(own[k]))
            return self.transform(*self.images.sample(i))

        with seeded_globals() as seed_all:
            pairs, kept, skipped = self.read(indices, piece)
        size = image_size(self.data)
        return Batch(
            images=torch.stack([image for image, _ in pairs])
            if pairs
            else torch.empty(0, self.info.channels, *size),
            targets=torch.stack([classes for _, classes in pairs])
            if pairs
            else torch.empty(0, *size, dtype=torch.uint8),
            index=torch.from_numpy(kept),
            names=tuple(self.images.name(i) for i in kept),
            skipped=tuple(skipped),
        )


class EvaluationMaps(Batches[MapSet]):
    """Whole pictures: images a list of (C, H, W), targets a list of (height, width) uint8 in the picture's own size."""

    def __init__(
        self, images: MapSet, data: DataConfig, info: DatasetInfo, task: TaskConfig | None = None
    ) -> None:
        super().__init__(images, data)
        self.info, self.task = info, task

    def __getitem__(self, place: Place) -> Batch:
        def whole(k: int, i: int) -> tuple[Tensor, Tensor]:
            picture, classes = self.images.sample(i)
            image = whole_picture(picture, self.data, self.info, self.task)
            return image, torch.from_numpy(np.ascontiguousarray(classes))

        pairs, kept, skipped = self.read(place[1], whole)
        return Batch(
            images=[image for image, _ in pairs],
            targets=[classes for _, classes in pairs],
            index=torch.from_numpy(kept),
            names=tuple(self.images.name(i) for i in kept),
            skipped=tuple(skipped),
        )

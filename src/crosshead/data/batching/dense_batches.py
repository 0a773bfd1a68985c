"""Batches of pictures with maps or with objects."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosshead.data.base import Batch, DatasetInfo, ImageSet
from crosshead.data.batching.batches import Batches, EpochBatches, Images
from crosshead.data.batching.order import Place
from crosshead.data.datasets.dense import ObjectDataset, SegmentationDataset
from crosshead.data.random import Indices, keys, seeded_globals
from crosshead.data.transforms.maps import MapAugmentation, whole_picture
from crosshead.data.transforms.objects import ObjectAugmentation, whole_object_picture
from crosshead.data.transforms.pipeline import image_size
from crosshead.recipe.schema import AugmentConfig, DataConfig, TaskConfig

MULTIPLE = 32  # of pixels, that a batch's height and width are: the stride of most backbones' last stage


class _Training(EpochBatches[Images]):
    """What a set's ``sample`` gives, changed by ``transform`` under the picture's own seed."""

    def __init__(
        self,
        images: Images,
        data: DataConfig,
        augment: AugmentConfig,
        info: DatasetInfo,
        *,
        seed: int,
        epoch: int,
    ) -> None:
        super().__init__(images, data, seed=seed, epoch=epoch)
        self.augment, self.info = augment, info
        self.transform = self.augmentation()

    def __getitem__(self, place: Place) -> Batch:
        own = keys("augment", self.seed, self.epoch, self.drawn(place))

        def changed(k: int, i: int) -> tuple[Tensor, Any]:
            sample = self.images.sample(i)  # type: ignore[attr-defined]  # both kinds of sets have it
            seed_all(int(own[k]))
            return self.transform(*sample)

        with seeded_globals() as seed_all:
            samples, kept, skipped = self.read(place[1], changed)
        images, targets = self.collate([image for image, _ in samples], [target for _, target in samples])
        return _batch(self.images, images, targets, kept, skipped)

    def augmentation(self) -> Callable[..., tuple[Tensor, Any]]:
        raise NotImplementedError

    def collate(self, images: list[Tensor], targets: list[Any]) -> tuple[Tensor, Any]:
        raise NotImplementedError


class _Evaluation(Batches[Images]):
    """Whole pictures."""

    def __init__(
        self, images: Images, data: DataConfig, info: DatasetInfo, task: TaskConfig | None = None
    ) -> None:
        super().__init__(images, data)
        self.info, self.task = info, task

    def __getitem__(self, place: Place) -> Batch:
        samples, kept, skipped = self.read(place[1], lambda k, i: self.whole(i))
        images = self.collate([image for image, _ in samples])
        return _batch(self.images, images, [target for _, target in samples], kept, skipped)

    def whole(self, i: int) -> tuple[Tensor, Any]:
        raise NotImplementedError

    def collate(self, images: list[Tensor]) -> Any:
        raise NotImplementedError


class TrainingMaps(_Training[SegmentationDataset]):
    """Pieces of ``data.image_size``: images (B, C, H, W), targets (B, H, W) uint8."""

    def augmentation(self) -> MapAugmentation:
        return MapAugmentation(self.data, self.augment, self.info, self.images)

    def collate(self, images: list[Tensor], targets: list[Tensor]) -> tuple[Tensor, Tensor]:
        size = image_size(self.data)
        if not images:
            return torch.empty(0, self.info.channels, *size), torch.empty(0, *size, dtype=torch.uint8)
        return torch.stack(images), torch.stack(targets)


class EvaluationMaps(_Evaluation[SegmentationDataset]):
    """Whole pictures: images a list of (C, H, W), targets a list of (height, width) uint8 in the picture's own size."""

    def whole(self, i: int) -> tuple[Tensor, Tensor]:
        picture, classes = self.images.sample(i)
        image = whole_picture(picture, self.data, self.info, self.task)
        return image, torch.from_numpy(np.ascontiguousarray(classes))

    def collate(self, images: list[Tensor]) -> list[Tensor]:
        return images


class TrainingObjects(_Training[ObjectDataset]):
    """Pictures as the augmentation leaves them: images (B, C, H, W), see ``padded``; targets a list of dicts.

    Each has ``size`` (2,), the height and width of the picture inside the padding, and of its n objects, crowds left
    out, ``boxes`` (n, 4) float32, x1, y1, x2, y2 in pixels, ``labels`` (n,) and, where the set has them, ``masks``
    (n, height, width) uint8.
    """

    def augmentation(self) -> ObjectAugmentation:
        return ObjectAugmentation(self.data, self.augment, self.info, self.images)

    def collate(self, images: list[Tensor], targets: list[Any]) -> tuple[Tensor, list[Any]]:
        # Large-scale jitter is of one size, whatever pictures meet in a batch.
        least = image_size(self.data) if self.augment.jitter_range else (1, 1)
        return padded(images, self.info.channels, least), targets


class EvaluationObjects(_Evaluation[ObjectDataset]):
    """Whole pictures, padded as in training; targets a list of dicts.

    Each has ``size`` (2,), the height and width inside the padding; ``own`` (2,), those of the picture itself;
    ``objects``, crowds included, in the picture's own pixels; and ``id``, its number in COCO's results.
    """

    def whole(self, i: int) -> tuple[Tensor, dict[str, Any]]:
        picture, objects = self.images.sample(i)
        image = whole_object_picture(picture, self.data, self.info, self.task)
        return image, {
            "size": torch.tensor(image.shape[-2:]),
            "own": torch.tensor(objects.size),
            "objects": objects,
            "id": self.images.picture_id(i),
        }

    def collate(self, images: list[Tensor]) -> Tensor:
        return padded(images, self.info.channels)


def padded(
    images: Sequence[Tensor], channels: int, least: tuple[int, int] = (1, 1), multiple: int = MULTIPLE
) -> Tensor:
    """Images (C, h, w) as one (B, C, H, W), each top left, zeros beside it: what an average pixel is normalised to.

    H and W are those of the largest image, of ``least`` at any rate, rounded up to a ``multiple``.
    """
    sizes = [*(tuple(image.shape[-2:]) for image in images), least]
    height, width = (-(-max(sides) // multiple) * multiple for sides in zip(*sizes, strict=True))
    if not images:
        return torch.empty(0, channels, height, width)
    batch = images[0].new_zeros(len(images), channels, height, width)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[-2], : image.shape[-1]] = image
    return batch


def _batch(
    source: ImageSet, images: Any, targets: Any, kept: Indices, skipped: list[tuple[str, str]]
) -> Batch:
    return Batch(
        images=images,
        targets=targets,
        index=torch.from_numpy(kept),
        names=tuple(source.name(i) for i in kept),
        skipped=tuple(skipped),
    )

"""Batches of pictures with objects."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from crosshead.data.base import Batch, DatasetInfo
from crosshead.data.batching.batches import Batches, EpochBatches
from crosshead.data.batching.order import Place
from crosshead.data.datasets.objects import ObjectSet
from crosshead.data.random import Indices, keys, seeded_globals
from crosshead.data.transforms.objects import ObjectAugmentation, whole_object_picture
from crosshead.data.transforms.pipeline import image_size
from crosshead.recipe.schema import AugmentConfig, DataConfig, TaskConfig

MULTIPLE = 32  # of pixels, that a batch's height and width are: the stride of most backbones' last stage

Sample = tuple[Tensor, dict[str, Any]]


class TrainingObjects(EpochBatches[ObjectSet]):
    """Pictures as the augmentation leaves them: images (B, C, H, W), see ``padded``; targets a list of dicts.

    Each has ``size`` (2,), the height and width of the picture inside the padding, and of its n objects, crowds left
    out, ``boxes`` (n, 4) float32, x1, y1, x2, y2 in pixels, ``labels`` (n,) and, where the set has them, ``masks``
    (n, height, width) uint8.
    """

    def __init__(
        self,
        images: ObjectSet,
        data: DataConfig,
        augment: AugmentConfig,
        info: DatasetInfo,
        *,
        seed: int,
        epoch: int,
    ) -> None:
        super().__init__(images, data, seed=seed, epoch=epoch)
        self.info = info
        self.transform = ObjectAugmentation(data, augment, info)
        # Large-scale jitter is of one size, whatever pictures meet in a batch.
        self.least = image_size(data) if augment.jitter_range else (1, 1)

    def __getitem__(self, place: Place) -> Batch:
        indices = place[1]
        own = keys("augment", self.seed, self.epoch, indices)

        def changed(k: int, i: int) -> Sample:
            picture, objects = self.images.sample(i)
            seed_all(int(own[k]))
            return self.transform(picture, objects)

        with seeded_globals() as seed_all:
            read = self.read(indices, changed)
        return _batch(self.images, self.info, *read, least=self.least)


class EvaluationObjects(Batches[ObjectSet]):
    """Whole pictures, padded as in training; targets a list of dicts.

    Each has ``size`` (2,), the height and width inside the padding; ``own`` (2,), those of the picture itself;
    ``objects``, crowds included, in the picture's own pixels; and ``id``, its number in COCO's results.
    """

    def __init__(
        self, images: ObjectSet, data: DataConfig, info: DatasetInfo, task: TaskConfig | None = None
    ) -> None:
        super().__init__(images, data)
        self.info, self.task = info, task

    def __getitem__(self, place: Place) -> Batch:
        def whole(k: int, i: int) -> Sample:
            picture, objects = self.images.sample(i)
            image = whole_object_picture(picture, self.data, self.info, self.task)
            return image, {
                "size": torch.tensor(image.shape[-2:]),
                "own": torch.tensor(objects.size),
                "objects": objects,
                "id": self.images.picture_id(i),
            }

        return _batch(self.images, self.info, *self.read(place[1], whole), least=(1, 1))


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
    images: ObjectSet,
    info: DatasetInfo,
    samples: list[Sample],
    kept: Indices,
    skipped: list[tuple[str, str]],
    *,
    least: tuple[int, int],
) -> Batch:
    return Batch(
        images=padded([image for image, _ in samples], info.channels, least),
        targets=[target for _, target in samples],
        index=torch.from_numpy(kept),
        names=tuple(images.name(i) for i in kept),
        skipped=tuple(skipped),
    )

"""The images that a command measures a model on: a part of its run's data with the objects there, or pictures."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.inspect.inspected import InspectedRun

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Images:
    """The same images each time: spread evenly over a split, so that all models see the same ones."""

    inspected: InspectedRun
    split: str
    count: int
    source: Any  # an ImageSet, or the paths of pictures
    batch_size: int

    def batches(self, *, masks: bool = False) -> "Iterator[Any]":
        """Images (B, C, H, W), or with ``masks`` (images, (B, H, W) True on objects), on the model's device."""
        for images, batch in self._stacked():
            if masks:
                yield images, object_masks(self.inspected, images, batch)
            else:
                yield images

    def labelled(self) -> "Iterator[tuple[Tensor, Tensor]]":
        """Images and their classes, of a run that classifies."""
        for images, batch in self._stacked():
            yield images, batch.targets.to(self.inspected.device)

    def _stacked(self) -> "Iterator[tuple[Tensor, Any]]":
        """Images, padded where their sizes differ, and the batch that they come from; None for pictures of a folder."""
        if self.inspected.trained is None or isinstance(self.source, list):
            yield from self._pictures()
            return
        from crosshead.data.batching.dense_batches import padded
        from crosshead.data.batching.loader import evaluation_loader

        task, channels = self.inspected.trained.task, self.inspected.trained.info.channels
        for batch in evaluation_loader(task.evaluation_batches(self.source)):
            images = (
                padded(batch.images, channels, multiple=1) if isinstance(batch.images, list) else batch.images
            )
            yield images.to(self.inspected.device), batch

    def _pictures(self) -> "Iterator[tuple[Tensor, Any]]":
        import torch

        for start in range(0, self.count, self.batch_size):
            read = [self.inspected.read(file) for file in self.source[start : start + self.batch_size]]
            for _, alike in groupby(read, key=lambda picture: picture.shape):
                yield torch.cat(list(alike)), None


def open_images(inspected: InspectedRun, args: argparse.Namespace) -> Images:
    """What ``--images``, ``--split``, ``--pictures`` and ``--masks`` ask for.

    Raises:
        ValueError: a timm model without pictures, a split or masks that aren't there.
    """
    from crosshead.cli.commands.predict import find_pictures

    if args.pictures is not None:
        if args.masks:
            raise ValueError(
                "--masks: the objects of one's own pictures are not marked; leave it or --pictures out"
            )
        files = find_pictures([args.pictures])[: args.images]
        return Images(inspected, str(Path(args.pictures)), len(files), files, args.batch_size)
    if inspected.trained is None:
        raise ValueError(f"{inspected.name} brings no data; name pictures with --pictures DIR")
    return _of_run(inspected, inspected.trained, args)


def _of_run(inspected: InspectedRun, trained: Any, args: argparse.Namespace) -> Images:
    import numpy as np

    splits = trained.open_data()
    split = args.split or ("validation" if splits.test is None else "test")
    images = splits.part(split)
    if args.masks:
        check_marked(trained, images)
    count = min(args.images, len(images))
    spread = np.linspace(0, len(images) - 1, count).round().astype(np.int64)
    return Images(inspected, split, count, images.subset(spread), args.batch_size)


# Sets whose pictures are bright objects on a dark ground: an object is where it is bright.
_BRIGHT_OBJECTS = ("digits", "fashion-mnist")
_NO_CLASS = 255  # of a map's pixel
_BRIGHT = 0.2  # of the range from black to white


def check_marked(trained: Any, images: Any) -> None:
    """Raises ValueError for a run whose data set does not say where its objects are."""
    from crosshead.data.datasets.dense import ObjectDataset

    name = trained.recipe.data.name
    marked = {
        "map": trained.info.class_names[0] == "background",
        "objects": isinstance(images, ObjectDataset) and images.masked,
    }.get(trained.task.targets, name in _BRIGHT_OBJECTS)
    if not marked:
        raise ValueError(
            f"--masks: {name} does not mark its objects; {', '.join(_BRIGHT_OBJECTS)} do, maps with a class "
            "'background', and objects with masks"
        )


def object_masks(inspected: InspectedRun, images: "Tensor", batch: Any) -> "Tensor":
    """(B, H, W) True on objects of the images (B, C, H, W) of a batch; what is hidden, or no class, is none."""
    import torch

    assert inspected.trained is not None
    targets = inspected.trained.task.targets
    if targets == "map":
        masks = [(classes > 0) & (classes != _NO_CLASS) for classes in batch.targets]
        sizes = [tuple(image.shape[-2:]) for image in batch.images]
    elif targets == "objects":
        masks = [_of_objects(target["objects"]) for target in batch.targets]
        sizes = [tuple(target["size"].tolist()) for target in batch.targets]
    else:
        mean, std = (torch.tensor(list(each)).view(-1, 1, 1) for each in (inspected.mean, inspected.std))
        return (images.cpu() * std + mean).mean(1) > _BRIGHT
    marked = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
    for whole, mask, (height, width) in zip(marked, masks, sizes, strict=True):
        resized = torch.nn.functional.interpolate(mask[None, None].float(), size=(height, width))
        whole[:height, :width] = resized[0, 0] > 0
    return marked


def _of_objects(objects: Any) -> "Tensor":
    import torch

    return torch.from_numpy(objects.whole_masks()[~objects.crowd]).any(0)

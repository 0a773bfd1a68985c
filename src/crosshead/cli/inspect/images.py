"""The images that a command measures a model on: a fixed part of its run's data, or a folder of pictures."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.inspect.inspected import InspectedRun
from crosshead.cli.inspect.object_masks import check_marked, object_masks

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
        from crosshead.data.batching.dense import padded
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

    recipe, splits = trained.recipe, trained.open_data()
    split = args.split or ("validation" if splits.test is None else "test")
    images = getattr(splits, split) if split in ("train", "validation", "test") else None
    if images is None:
        raise ValueError(
            f"{recipe.data.name} has no split {split!r}; there are train, validation and, in some, test"
        )
    if args.masks:
        check_marked(trained, images)
    count = min(args.images, len(images))
    spread = np.linspace(0, len(images) - 1, count).round().astype(np.int64)
    return Images(inspected, split, count, images.subset(spread), args.batch_size)

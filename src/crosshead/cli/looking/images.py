"""The images that a command measures a model on: a fixed part of its run's data, or a folder of pictures."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.cli.looking.viewed import Viewed

if TYPE_CHECKING:
    from torch import Tensor

# Sets whose pictures are bright objects on a dark ground: an object is where it is bright.
_BRIGHT_OBJECTS = ("digits", "fashion_mnist")
_NO_CLASS = 255  # of a map's pixel
_BRIGHT = 0.2  # of the range from black to white


@dataclass(frozen=True)
class Images:
    """The same images each time: spread evenly over a split, so that all models see the same ones."""

    viewed: Viewed
    split: str
    count: int
    source: Any  # an ImageSet, or the paths of pictures
    batch_size: int

    def batches(self, *, masks: bool = False) -> "Iterator[Any]":
        """Images (B, C, H, W), or with ``masks`` (images, (B, H, W) True on objects), on the model's device."""
        for images, targets in self.labelled():
            yield (images, self._masks(images, targets)) if masks else images

    def labelled(self) -> "Iterator[tuple[Tensor, Any]]":
        """Images and their classes; None for pictures of a folder."""
        if self.viewed.trained is None or isinstance(self.source, list):
            yield from self._pictures()
            return
        from crosshead.data.loading.loader import evaluation_loader

        task = self.viewed.trained.task
        for batch in evaluation_loader(task.evaluation_batches(self.source)):
            yield batch.images.to(self.viewed.device), batch.targets.to(self.viewed.device)

    def _pictures(self) -> "Iterator[tuple[Tensor, Any]]":
        import torch

        for start in range(0, self.count, self.batch_size):
            files = self.source[start : start + self.batch_size]
            yield torch.cat([self.viewed.read(file) for file in files]), None

    def _masks(self, images: "Tensor", targets: Any) -> "Tensor":
        import torch

        if self.viewed.trained is not None and self.viewed.trained.recipe.task.name == "segment":
            return (targets > 0) & (targets != _NO_CLASS)
        mean, std = (torch.tensor(list(each)).view(-1, 1, 1) for each in (self.viewed.mean, self.viewed.std))
        return (images.cpu() * std + mean).mean(1) > _BRIGHT


def open_images(viewed: Viewed, args: argparse.Namespace) -> Images:
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
        return Images(viewed, str(Path(args.pictures)), len(files), files, args.batch_size)
    if viewed.trained is None:
        raise ValueError(f"{viewed.name} brings no data; name pictures with --pictures DIR")
    return _of_run(viewed, viewed.trained, args)


def _of_run(viewed: Viewed, trained: Any, args: argparse.Namespace) -> Images:
    import numpy as np

    from crosshead.data.sets.catalog import open_splits

    recipe = trained.recipe
    maps = recipe.task.name == "segment" and trained.info.class_names[0] == "background"
    if args.masks and not maps and recipe.data.name not in _BRIGHT_OBJECTS:
        raise ValueError(
            f"--masks: {recipe.data.name} does not mark its objects; {', '.join(_BRIGHT_OBJECTS)} do, and maps with a "
            "class 'background'"
        )
    splits = open_splits(recipe.data, seed=recipe.train.seed)
    split = args.split or ("validation" if splits.test is None else "test")
    images = getattr(splits, split) if split in ("train", "validation", "test") else None
    if images is None:
        raise ValueError(
            f"{recipe.data.name} has no split {split!r}; there are train, validation and, in some, test"
        )
    count = min(args.images, len(images))
    spread = np.linspace(0, len(images) - 1, count).round().astype(np.int64)
    return Images(viewed, split, count, images.subset(spread), args.batch_size)

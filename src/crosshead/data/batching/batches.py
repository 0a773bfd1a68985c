"""Batches by their place in the order, made where they are asked for: in a loader's workers, or here."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from torch.utils.data import Dataset

from crosshead.data.base import Batch, ImageSet
from crosshead.data.batching.order import Place, epoch_order, repeat_factors, repeat_order
from crosshead.data.decode.images import BrokenImage
from crosshead.data.random import Indices
from crosshead.recipe.schema import DataConfig

T = TypeVar("T")
Images = TypeVar("Images", bound=ImageSet)


class Batches(Dataset[Batch], Generic[Images]):
    """What a task makes of ``images``: ``batches[position, indices]`` is the batch of those pictures."""

    def __init__(self, images: Images, data: DataConfig) -> None:
        self.images, self.data = images, data

    def __getitem__(self, place: Place) -> Batch:
        raise NotImplementedError

    def read(
        self, indices: Indices, item: Callable[[int, int], T]
    ) -> tuple[list[T], Indices, list[tuple[str, str]]]:
        """``item(k, i)`` of every picture i = indices[k]: the items, which pictures they are, and (name, reason) of
        the broken ones, which are left out."""
        items, kept, skipped = [], [], []
        for k, i in enumerate(indices.tolist()):
            try:
                items.append(item(k, i))
                kept.append(k)
            except BrokenImage as broken:
                skipped.append((self.images.name(i), broken.reason))
        return items, indices[kept], skipped


class EpochBatches(Batches[Images]):
    """Batches of one epoch of training: everything random in them is a function of (seed, epoch, index)."""

    def __init__(self, images: Images, data: DataConfig, *, seed: int, epoch: int) -> None:
        super().__init__(images, data)
        self.seed, self.epoch = seed, epoch

    def order(self, used: int) -> Indices:
        """The pictures of the epoch in the order in which all processes together see them; ``used`` of them.

        Raises:
            ValueError: a kind of sampling that is not for these pictures.
        """
        if self.data.sampling == "repeat_factor":
            factors = repeat_factors(self.images, self.data.repeat_threshold)
            return repeat_order(used, factors, seed=self.seed, epoch=self.epoch)
        if self.data.sampling == "balanced":
            raise ValueError(
                "data.sampling is balanced, which is for pictures with one class each; expected uniform or "
                "repeat_factor"
            )
        return epoch_order(used, len(self.images), seed=self.seed, epoch=self.epoch)

    def drawn(self, place: Place) -> Indices:
        """What keys the draws of each picture of a batch: itself; its place where a picture may come more than once."""
        position, indices = place
        uniform = self.data.sampling == "uniform"
        return indices if uniform else np.arange(position, position + len(indices))

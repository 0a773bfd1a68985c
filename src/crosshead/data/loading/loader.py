"""Batches for training and evaluation, the same whatever the number of worker processes."""

import atexit
import os
import signal
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crosshead.data.files.images import BrokenImage
from crosshead.data.loading.batch import Batch
from crosshead.data.loading.keys import keys, seeded_globals
from crosshead.data.loading.order import epoch_order, evaluation_batches, samples_per_epoch, training_batches
from crosshead.data.sets.common import ArrayImages, BrokenPolicy, DatasetInfo, ImageSet, Indices
from crosshead.data.transforms import views
from crosshead.data.transforms.mixing import Mixing
from crosshead.data.transforms.pipeline import (
    Transform,
    evaluation_transform,
    fit,
    image_size,
    normalise,
    training_transform,
)
from crosshead.recipe.schema import AugmentConfig, DataConfig

_OPEN: "weakref.WeakSet[Iterator[Batch]]" = weakref.WeakSet()

Place = tuple[int, Indices]  # where a batch begins in the epoch's order, and its pictures
Read = tuple[
    Tensor, list[int], list[tuple[str, str]]
]  # images, which of the pictures they are, (name, reason)


def training_loader(
    images: ImageSet,
    data: DataConfig,
    augment: AugmentConfig,
    info: DatasetInfo,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    accumulation_steps: int = 1,
) -> "Loader":
    """This process's batches of one epoch, augmented and mixed, after the order's first ``start`` samples.

    ``start`` counts samples over all processes. Order, augmentation and mixing are functions of
    (seed, epoch, index) alone. What fills no whole step is dropped, as ``samples_per_epoch`` counts.
    A picture that can't be read leaves its place empty and changes no other; see :class:`Loader`.
    """
    used = samples_per_epoch(len(images), data.batch_size, world_size, accumulation_steps)
    order = epoch_order(used, len(images), seed=seed, epoch=epoch)
    places = training_batches(order, data.batch_size, start=start, rank=rank, world_size=world_size)
    batches = TrainingBatches(images, data, augment, info, seed=seed, epoch=epoch)
    return Loader(batches, places, data, policy="on_broken_train")


def evaluation_loader(
    images: ImageSet,
    data: DataConfig,
    info: DatasetInfo,
    *,
    rank: int = 0,
    world_size: int = 1,
    policy: BrokenPolicy = "on_broken_eval",
) -> "Loader":
    """This process's share of ``images``, in order: over all processes each exactly once, tails uneven.

    ``policy`` is the key of ``data`` that broken pictures follow; see ``Splits.broken_policy``.
    """
    batch_size = data.eval_batch_size or data.batch_size
    places = evaluation_batches(len(images), batch_size, rank=rank, world_size=world_size)
    batches = EvaluationBatches(images, data, info)
    return Loader(batches, places, data, policy=policy)


class Batches(Dataset[Batch]):
    """Batches by their place; runs in the workers."""

    def __init__(self, images: ImageSet, data: DataConfig, info: DatasetInfo, transform: Transform) -> None:
        self.images, self.data, self.info, self.transform = images, data, info, transform

    def read(self, indices: Indices, before_each: Callable[[int], None] = lambda k: None) -> Batch:
        """Loads and transforms picture by picture, leaving out the broken ones."""
        tensors, kept, skipped = [], [], []
        for k, i in enumerate(indices.tolist()):
            before_each(k)
            try:
                tensors.append(self.transform(self.images.load(i)))
                kept.append(k)
            except BrokenImage as broken:
                skipped.append((self.images.name(i), broken.reason))
        stacked = (
            torch.stack(tensors) if tensors else torch.empty(0, self.info.channels, *image_size(self.data))
        )
        return self.labelled(stacked, indices[kept], skipped)

    def labelled(self, tensors: Tensor, index: Indices, skipped: list[tuple[str, str]]) -> Batch:
        """The batch of the pictures ``index``, whose ``tensors`` (B, C, H, W) are ready."""
        return Batch(
            images=tensors,
            targets=torch.tensor([self.images.targets[i] for i in index], dtype=torch.int64),
            index=torch.from_numpy(index),
            names=tuple(self.images.name(i) for i in index),
            skipped=tuple(skipped),
        )


class TrainingBatches(Batches):
    """Augmented and mixed batches of one epoch."""

    def __init__(
        self,
        images: ImageSet,
        data: DataConfig,
        augment: AugmentConfig,
        info: DatasetInfo,
        *,
        seed: int,
        epoch: int,
    ) -> None:
        super().__init__(images, data, info, training_transform(data, augment, info))
        self.augment, self.seed, self.epoch = augment, seed, epoch
        self.mixing = Mixing(augment, len(info.class_names))

    def __getitem__(self, place: Place) -> Batch:
        position, indices = place
        batch = self._views(indices) if views.serves(self.images, self.augment) else self._one_by_one(indices)
        mixed, targets = self.mixing(
            batch.images, batch.targets, seed=self.seed, epoch=self.epoch, position=position
        )
        return replace(batch, images=mixed, targets=targets)

    def _views(self, indices: Indices) -> Batch:
        assert isinstance(self.images, ArrayImages)
        pixels = self.images.pixels[torch.from_numpy(indices)]
        moved = views.random_views(
            pixels, self.data, self.augment, self.info, seed=self.seed, epoch=self.epoch, index=indices
        )
        return self.labelled(moved, indices, [])

    def _one_by_one(self, indices: Indices) -> Batch:
        own = keys("augment", self.seed, self.epoch, indices)
        with seeded_globals() as seed_all:
            return self.read(indices, lambda k: seed_all(int(own[k])))


class EvaluationBatches(Batches):
    """Batches without any randomness."""

    def __init__(self, images: ImageSet, data: DataConfig, info: DatasetInfo) -> None:
        super().__init__(images, data, info, evaluation_transform(data, info))

    def __getitem__(self, place: Place) -> Batch:
        indices = place[1]
        if not isinstance(self.images, ArrayImages):
            return self.read(indices)
        pixels = fit(self.images.pixels[torch.from_numpy(indices)], self.data, self.data.eval_resize)
        return self.labelled(normalise(pixels, self.info), indices, [])


def worker_advice(num_workers: int, processes: int) -> str | None:
    """What to say of ``num_workers`` for each of the ``processes`` of this machine; None where it has the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_workers * processes <= cores:
        return None
    return (
        f"data.num_workers={num_workers}{f' for each of {processes} processes' if processes > 1 else ''} is more than "
        f"this machine's {cores} cores; data.num_workers={cores // processes} asks less of them"
    )


class Loader:
    """Iterates over batches made in ``data.num_workers`` processes, or in this one.

    Where ``policy``, a key of ``data``, says "skip", broken pictures are missing from their batch (which may
    so become empty) and listed in its ``skipped``, up to ``data.max_broken`` different ones in this loader;
    where it says "fail", the first one ends the iteration.

    Raises:
        BrokenImage: while iterating, naming the picture.
        ValueError: while iterating, when there are more broken pictures than ``data.max_broken``.
    """

    def __init__(
        self, batches: Dataset[Batch], places: Sequence[Place], data: DataConfig, *, policy: BrokenPolicy
    ) -> None:
        self.batches, self.places, self.data, self.policy = batches, places, data, policy

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Batch]:
        broken: dict[str, str] = {}
        with _signals_held(), warnings.catch_warnings():
            # Twice an epoch, from every process, what a run says once.
            warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
            source = iter(self._torch_loader())
        _OPEN.add(source)
        for batch in source:
            self._judge(batch, broken)
            yield batch

    def _torch_loader(self) -> "DataLoader[Batch]":
        return DataLoader(
            self.batches,
            batch_size=None,
            sampler=self.places,  # type: ignore[arg-type]  # any iterable of what the dataset takes
            num_workers=self.data.num_workers,
            multiprocessing_context=_start_method() if self.data.num_workers else None,
            worker_init_fn=_ignore_signals,
            pin_memory=torch.cuda.is_available(),
            # Its own generator: otherwise every epoch consumes the global one, which models draw from.
            generator=torch.Generator().manual_seed(0),
        )

    def _judge(self, batch: Batch, broken: dict[str, str]) -> None:
        if batch.skipped and getattr(self.data, self.policy) == "fail":
            remedy = f"replace or remove it (crosshead data check lists all), or set data.{self.policy}=skip"
            raise BrokenImage(*batch.skipped[0], remedy)
        broken.update(batch.skipped)
        if len(broken) > self.data.max_broken:
            first = "; ".join(f"{name}: {reason}" for name, reason in list(broken.items())[:3])
            raise ValueError(
                f"{len(broken)} broken pictures, above data.max_broken ({self.data.max_broken}): {first}; "
                "replace or remove them (crosshead data check lists all), or raise the limit"
            )


def _start_method() -> str | None:
    # Python 3.14's own choice on Linux would import everything anew in each worker of each epoch, and its
    # workers would not start with the signals blocked.
    return "fork" if sys.platform == "linux" else None


@atexit.register
def _end_workers() -> None:
    """Ends the workers of loaders that were left in the middle and are still held, by a traceback say.

    Python itself would send them SIGTERM and wait for them, which ignore it.
    """
    for source in list(_OPEN):
        if hasattr(source, "_shutdown_workers"):
            source._shutdown_workers()


def _ignore_signals(worker: int) -> None:
    # A signal to the whole group is the trainer's to answer: it still needs batches to finish its step.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Workers start with SIGINT and SIGTERM blocked, so that none is hit before it ignores them."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)

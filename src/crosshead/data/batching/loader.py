"""Batches for training and evaluation, the same whatever the number of worker processes."""

import atexit
import os
import signal
import sys
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader

from crosshead.data.base import Batch, BrokenPolicy
from crosshead.data.batching.batches import Batches, EpochBatches
from crosshead.data.batching.order import (
    Place,
    evaluation_batches,
    samples_per_epoch,
    training_batches,
)
from crosshead.data.decode.images import BrokenImage

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_OPEN: "weakref.WeakSet[Iterator[Batch]]" = weakref.WeakSet()


def training_loader(
    batches: EpochBatches,
    *,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    accumulation_steps: int = 1,
) -> "Loader":
    """This process's share of an epoch's ``batches``, after the order's first ``start`` samples.

    ``start`` counts samples over all processes. Order, augmentation and mixing are functions of
    (seed, epoch, index) alone. What fills no whole step is dropped, as ``samples_per_epoch`` counts.
    A picture that can't be read leaves its place empty and changes no other; see :class:`Loader`.
    """
    length, batch_size = len(batches.images), batches.data.batch_size
    used = samples_per_epoch(length, batch_size, world_size, accumulation_steps)
    places = training_batches(batches.order(used), batch_size, start=start, rank=rank, world_size=world_size)
    return Loader(batches, places, policy="on_broken_train")


def evaluation_loader(
    batches: Batches, *, rank: int = 0, world_size: int = 1, policy: BrokenPolicy = "on_broken_eval"
) -> "Loader":
    """This process's share of the images, in order: over all processes each exactly once, tails uneven.

    ``policy`` is the key of ``data`` that broken pictures follow; see ``Splits.broken_policy``.
    """
    batch_size = batches.data.eval_batch_size or batches.data.batch_size
    places = evaluation_batches(len(batches.images), batch_size, rank=rank, world_size=world_size)
    return Loader(batches, places, policy=policy)


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

    def __init__(self, batches: Batches, places: Sequence[Place], *, policy: BrokenPolicy) -> None:
        self.batches, self.places, self.data, self.policy = batches, places, batches.data, policy

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
            name, reason = batch.skipped[0]
            raise BrokenImage(name, reason, remedy)
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
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Workers start with these blocked, so that none is hit before it ignores them."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)

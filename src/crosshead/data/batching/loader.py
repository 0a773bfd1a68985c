"""Batches for training and evaluation, the same whatever the number of worker processes."""

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from crosshead.data.base import Batch, BrokenPolicy
from crosshead.data.batching.batches import Batches, EpochBatches
from crosshead.data.batching.order import (
    Place,
    evaluation_batches,
    samples_per_epoch,
    training_batches,
)
from crosshead.data.batching.workers import Stopped, Workers, WorkersLost, pinned
from crosshead.data.decode.images import BrokenImage


def _warn(message: str) -> None:
    warnings.warn(f"{message}. The batches are made without them from here on", RuntimeWarning, stacklevel=2)


@dataclass(frozen=True)
class Waiting:
    """What may end a wait for the workers' next batch.

    Where ``stopped()``, the iteration ends early. Where a worker dies or can't hand over its batch, or where none comes
    for ``patience_s`` seconds, ``lost`` is told so, and the batches are made without workers.
    """

    stopped: Callable[[], bool] = lambda: False
    patience_s: float = math.inf
    lost: Callable[[str], None] = _warn


def training_loader(
    batches: EpochBatches,
    *,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    accumulation_steps: int = 1,
    workers: Workers | None = None,
    waiting: Waiting | None = None,
) -> "Loader":
    """This process's share of an epoch's ``batches``, after the order's first ``start`` samples.

    ``start`` counts samples over all processes. Order, augmentation and mixing are functions of
    (seed, epoch, index) alone. What fills no whole step is dropped, as ``samples_per_epoch`` counts.
    A picture that can't be read leaves its place empty and changes no other; see :class:`Loader`.
    """
    length, batch_size = len(batches.images), batches.data.batch_size
    used = samples_per_epoch(length, batch_size, world_size, accumulation_steps)
    places = training_batches(batches.order(used), batch_size, start=start, rank=rank, world_size=world_size)
    return Loader(batches, places, policy="on_broken_train", workers=workers, waiting=waiting)


def evaluation_loader(
    batches: Batches,
    *,
    rank: int = 0,
    world_size: int = 1,
    policy: BrokenPolicy = "on_broken_eval",
    workers: Workers | None = None,
    waiting: Waiting | None = None,
) -> "Loader":
    """This process's share of the images, in order: over all processes each exactly once, tails uneven.

    ``policy`` is the key of ``data`` that broken pictures follow; see ``Splits.broken_policy``.
    """
    batch_size = batches.data.eval_batch_size or batches.data.batch_size
    places = evaluation_batches(len(batches.images), batch_size, rank=rank, world_size=world_size)
    return Loader(batches, places, policy=policy, workers=workers, waiting=waiting)


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
    where it says "fail", the first one ends the iteration. Where the processes fail, the rest of the batches is made in
    this one. ``workers`` are processes to use and to leave for the next pass; without them it has its own.

    Raises:
        BrokenImage: while iterating, naming the picture.
        ValueError: while iterating, when there are more broken pictures than ``data.max_broken``.
    """

    def __init__(
        self,
        batches: Batches,
        places: Sequence[Place],
        *,
        policy: BrokenPolicy,
        workers: Workers | None = None,
        waiting: Waiting | None = None,
    ) -> None:
        self.batches, self.places, self.data, self.policy = batches, places, batches.data, policy
        self.workers, self.waiting = workers, waiting or Waiting()

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Batch]:
        broken: dict[str, str] = {}
        for batch in self._made():
            self._judge(batch, broken)
            yield batch

    def _made(self) -> Iterator[Batch]:
        done = 0
        if self.data.num_workers:
            workers = self.workers or Workers(self.data.num_workers)
            try:
                for batch in workers.make(
                    self.batches,
                    self.places,
                    stopped=self.waiting.stopped,
                    patience_s=self.waiting.patience_s,
                ):
                    done += 1
                    yield batch
            except WorkersLost as lost:
                self.waiting.lost(str(lost))
            except Stopped:
                return
            finally:
                if workers is not self.workers:
                    workers.end()
        for place in self.places[done:]:
            yield pinned(self.batches[place])

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

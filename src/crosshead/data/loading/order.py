"""Which pictures a process sees, and in what order."""

import numpy as np

from crosshead.data.loading.keys import permutation
from crosshead.data.sets.common import Indices

Place = tuple[int, Indices]  # where a batch begins in the epoch's order, and its pictures


def samples_per_epoch(length: int, batch_size: int, world_size: int = 1, accumulation_steps: int = 1) -> int:
    """How many of ``length`` pictures an epoch uses: those of whole optimizer steps over all processes.

    Raises:
        ValueError: there is not even one step.
    """
    step = batch_size * world_size * accumulation_steps
    if length < step:
        fitting = length // (world_size * accumulation_steps)
        remedy = (
            f"lower data.batch_size to {fitting} or less"
            if fitting
            else "start fewer processes or lower train.accumulation_steps"
        )
        raise ValueError(
            f"{length} training images are fewer than one step of {step} "
            f"(data.batch_size {batch_size} x {world_size} processes x {accumulation_steps} accumulated): {remedy}"
        )
    return length // step * step


def epoch_order(used: int, length: int, *, seed: int, epoch: int) -> Indices:
    """The epoch's permutation of all ``length`` pictures, cut after ``used``."""
    return permutation("order", seed, epoch, length)[:used]


def training_batches(
    order: Indices, batch_size: int, *, start: int, rank: int, world_size: int
) -> list[Place]:
    """(position, indices) of this process's batches, the first ``start`` samples of ``order`` left out.

    Each global batch is a run of ``batch_size * world_size`` of the order, of which process r takes the r-th
    part: two processes together see what one with twice the batch sees. ``position`` is where it begins.
    """
    last = len(order) - (world_size - rank) * batch_size
    begins = range(start + rank * batch_size, last + 1, batch_size * world_size)
    return [(begin, order[begin : begin + batch_size]) for begin in begins]


def evaluation_batches(length: int, batch_size: int, *, rank: int, world_size: int) -> list[Place]:
    """(position, indices): over all processes every picture exactly once, unpadded; tails may be uneven."""
    mine = np.arange(rank, length, world_size)
    return [(begin, mine[begin : begin + batch_size]) for begin in range(0, len(mine), batch_size)]

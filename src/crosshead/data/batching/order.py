"""Which pictures a process sees, and in what order."""

from collections.abc import Sequence

import numpy as np

from crosshead.data.random import Indices, permutation

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


def balanced_order(used: int, targets: Sequence[int], *, seed: int, epoch: int) -> Indices:
    """``used`` pictures of an epoch in which every class that there is comes equally often, give or take one.

    A class's pictures take turns, in an order that is drawn anew for each round: of a small class each comes several
    times before any comes once more. A function of (seed, epoch) alone, as :func:`epoch_order` is.
    """
    labels = np.asarray(targets, dtype=np.int64)
    classes = np.unique(labels)
    turns = permutation("balanced classes", seed, epoch, used) % len(classes)
    order = np.empty(used, dtype=np.int64)
    for turn, label in enumerate(classes):
        members, places = np.flatnonzero(labels == label), np.flatnonzero(turns == turn)
        rounds = -(-len(places) // len(members))
        drawn = [
            members[permutation(f"balanced pictures {label} {number}", seed, epoch, len(members))]
            for number in range(rounds)
        ]
        order[places] = np.concatenate([np.empty(0, dtype=np.int64), *drawn])[: len(places)]
    return order


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

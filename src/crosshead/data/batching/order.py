"""Which pictures a process sees, and in what order: each once, by class, or those with rare classes more often."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from crosshead.data.base import IGNORED, ImageSet
from crosshead.data.datasets.dense import ObjectDataset, StoredMaps, StoredObjects
from crosshead.data.decode.images import BrokenImage
from crosshead.data.random import Indices, keys, permutation, uniforms

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


# An epoch asks for those of its run's pictures; to read all maps takes a while.
_KNOWN: "WeakKeyDictionary[ImageSet, dict[float, NDArray[np.float64]]]" = WeakKeyDictionary()


def repeat_factors(images: ImageSet, threshold: float) -> NDArray[np.float64]:
    """How often each picture comes where others come once, (N,): the largest of its classes' max(1, sqrt(threshold /
    f)), f the share of pictures that have the class. Maps, and objects that are not told otherwise, are read once; a
    broken picture counts as one without a class.

    Raises:
        ValueError: pictures have numbers in place of classes.
    """
    known = _KNOWN.setdefault(images, {})
    if threshold not in known:
        held = (
            [_classes(images, i) for i in range(len(images))] if _told(images) is None else _of_told(images)
        )
        counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *held]))
        of_class = np.sqrt(threshold * len(images) / np.maximum(counts, 1))
        known[threshold] = np.array([max(1.0, of_class[each].max(initial=1.0)) for each in held])
    return known[threshold]


def repeat_order(used: int, factors: NDArray[np.float64], *, seed: int, epoch: int) -> Indices:
    """``used`` pictures of an epoch: each comes the whole part of its factor times, and once more with the chance of
    what is left, in an order that is drawn; what is beyond ``used`` of them is left out, so that an epoch is as long as
    any. A function of (seed, epoch) alone."""
    whole = np.floor(factors)
    drawn = uniforms(keys("repeats", seed, epoch, np.arange(len(factors))), 1)[:, 0]
    times = (whole + (drawn < factors - whole)).astype(np.int64)
    places = np.repeat(np.arange(len(factors)), times)
    return places[permutation("repeat order", seed, epoch, len(places))[:used]]


def _told(images: ImageSet) -> Any:
    return images.told_objects() if isinstance(images, ObjectDataset) else None


def _of_told(images: ImageSet) -> list[Indices]:
    told = _told(images)
    order = np.argsort(told.places, kind="stable")
    parts = np.split(told.labels[order], np.searchsorted(told.places[order], np.arange(1, len(images))))
    return [np.unique(part).astype(np.int64) for part in parts]


def _classes(images: ImageSet, i: int) -> Indices:
    """Which classes picture ``i`` has, each once."""
    try:
        if isinstance(images, StoredMaps):
            numbers = np.unique(images.numbers(i)).astype(np.int64)
            numbers = numbers - 1 if images.zero_is_ignored else numbers
            return numbers[(numbers >= 0) & (numbers != IGNORED)]
        if isinstance(images, StoredObjects):
            objects = images.objects(i)
            return np.unique(objects.labels[~objects.crowd])
        if isinstance(images, ObjectDataset):
            objects = images.sample(i)[1]
            return np.unique(objects.labels[~objects.crowd])
        if images.counted == "pixels":
            classes = np.unique(images.sample(i)[1]).astype(np.int64)  # type: ignore[attr-defined]
            return classes[classes != IGNORED]
    except BrokenImage:
        return np.zeros(0, np.int64)
    target = images.targets[i]
    if isinstance(target, float):
        raise ValueError(
            "data.sampling=repeat_factor: the pictures have numbers, and none of them is a rare class"
        )
    return np.flatnonzero(target) if isinstance(target, list) else np.array([target], np.int64)

"""Repeat-factor sampling: pictures with rare classes come more often (Gupta et al., LVIS, arXiv 1908.03195, section
4.2)."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from crosshead.data.base import IGNORED, ImageSet
from crosshead.data.datasets.dense import ObjectDataset, StoredMaps, StoredObjects
from crosshead.data.decode.images import BrokenImage
from crosshead.data.random import Indices, keys, permutation, uniforms

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

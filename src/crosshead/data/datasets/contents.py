"""How much of each class a split holds, as far as that is told without reading its pictures."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosshead.data.base import IGNORED, ImageSet
from crosshead.data.coco.instances import Objects
from crosshead.data.datasets.dense import StoredMaps, StoredObjects
from crosshead.data.decode.images import BrokenImage

LOOKED = 256  # maps, or packed files of objects, that are read of a split: a second or two
BINARY = (
    "the maps hold 0 and 255 alone, and 255 is no class here: they look like drawn masks. Write 1 where they have 255, "
    "such as by Image.fromarray((numpy.asarray(Image.open(path)) > 0).astype('uint8')).save(path)"
)
AREAS = (32**2, 96**2)  # pixels: how COCO's numbers part small, medium and large objects


@dataclass(frozen=True)
class Contents:
    """``counts`` by class of what is ``counted``: pictures ("images"), "pixels" of their maps, or "objects" without
    crowds. They are of ``looked`` of the split's ``pictures``, evenly spread where these are fewer.

    ``numbers`` are those that the maps hold; ``sizes`` how many objects are small, medium and large, ``most`` how many
    one picture has; ``values`` how many different numbers the pictures have, where they have numbers.
    """

    counted: str
    counts: NDArray[np.int64]
    pictures: int
    looked: int
    numbers: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    most: int = 0
    values: int = 0

    @property
    def whole(self) -> bool:
        """Whether nothing of the split was left out."""
        return self.looked == self.pictures

    @property
    def two_valued(self) -> bool:
        """Whether the maps hold 0 and 255 alone, as pictures of black and white do."""
        return self.counted == "pixels" and self.numbers == (0, IGNORED)


def contents(images: ImageSet, classes: int) -> Contents | None:
    """What ``images`` hold; None where their targets are made with the pictures."""
    if images.counted == "images":
        return _labels(images, classes)
    if isinstance(images, StoredMaps):
        return _pixels(images, classes)
    if not isinstance(images, StoredObjects):
        return None
    count = len(images)
    if (told := images.told_objects()) is not None:
        return _objects(*told, classes, count, count)
    looked = _spread(count)
    found = list(_readable(lambda i: images.objects(i), looked))
    kept = [~objects.crowd for objects in found]
    labels = [objects.labels[told] for objects, told in zip(found, kept, strict=True)]
    areas = [objects.areas[told] for objects, told in zip(found, kept, strict=True)]
    places = np.repeat(np.arange(len(labels)), [len(each) for each in labels])
    nothing = [np.zeros(0)]
    return _objects(
        np.concatenate(labels or nothing),
        np.concatenate(areas or nothing),
        places,
        classes,
        count,
        len(looked),
    )


def object_counts(objects: Objects, classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each class, and of small, medium and large ones and crowds."""
    told = ~objects.crowd
    return np.bincount(objects.labels[told], minlength=classes), np.append(
        _sizes(objects.areas[told]), np.count_nonzero(~told)
    )


def label_counts(target: Any, classes: int) -> NDArray[np.int64]:
    """How often each class has the picture: once its own; once each of several; never, where it has a number."""
    if isinstance(target, list):
        return np.asarray(target, dtype=np.int64)
    return np.bincount([] if isinstance(target, float) else [target], minlength=classes)


def _labels(images: ImageSet, classes: int) -> Contents:
    targets, count, values = images.targets, len(images), 0
    if count and isinstance(targets[0], list):
        counts = np.asarray(targets, dtype=np.int64).sum(0)
    elif count and isinstance(targets[0], float):
        counts, values = np.zeros(0, np.int64), len(set(targets))
    else:
        counts = np.bincount(np.asarray(targets, dtype=np.int64), minlength=classes)
    return Contents("images", counts, count, count, values=values)


def _pixels(images: StoredMaps, classes: int) -> Contents:
    count = len(images)
    looked, levels = _spread(count), np.zeros(256, np.int64)
    for numbers in _readable(images.numbers, looked):
        levels += np.bincount(numbers.ravel(), minlength=256)
    own = np.roll(levels, -1) if images.zero_is_ignored else levels
    found = () if images.zero_is_ignored else tuple(np.flatnonzero(levels).tolist())
    return Contents("pixels", own[:classes], count, len(looked), numbers=found)


def _objects(
    labels: NDArray[Any], areas: NDArray[Any], places: NDArray[Any], classes: int, pictures: int, looked: int
) -> Contents:
    counts = np.bincount(labels.astype(np.int64), minlength=classes)
    most = int(np.bincount(places).max()) if len(places) else 0
    sizes = tuple(_sizes(areas).tolist())
    return Contents("objects", counts, pictures, looked, sizes=sizes, most=most)


def _sizes(areas: NDArray[Any]) -> NDArray[np.int64]:
    return np.bincount(np.digitize(areas, AREAS), minlength=len(AREAS) + 1)


def _spread(count: int) -> list[int]:
    return sorted({place * count // LOOKED for place in range(LOOKED)}) if count > LOOKED else [*range(count)]


def _readable(read: Any, places: Iterable[int]) -> Any:
    for i in places:
        try:
            yield read(i)
        except BrokenImage:  # named by whoever reads the picture
            continue

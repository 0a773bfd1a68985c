"""Reads a COCO file (https://cocodataset.org/#format-data) into arrays, and tells what is wrong in it.

What is wrong with the file as a whole is a ValueError. What is wrong with a picture's entry, or with one of its
objects, is told of that picture, for the caller to judge.
"""

import math
from array import array
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

from crosshead.data.coco.conventions import apart_from_outlines, check_convention
from crosshead.data.coco.faults import Fault, find_faults, of_pictures
from crosshead.data.coco.instances import (
    NO_MASK,
    POLYGONS,
    RUN_LENGTHS,
    Floats,
    Instances,
    Ints,
    Outlines,
)
from crosshead.data.coco.rle import read_counts
from crosshead.data.coco.sections import read_sections

_LARGEST = 2**31 - 1  # of a side, and of a count of pixels
_NAN_BOX = (math.nan,) * 4


@dataclass(frozen=True)
class Categories:
    """``ids`` (C,) ascending, and their names."""

    ids: Ints
    names: tuple[str, ...]


@dataclass(frozen=True)
class Read:
    """``faults``: by picture, why it is broken. ``stray`` says of objects that belong to no picture which they are;
    ``beyond`` counts boxes that reach beyond their pictures by more than a pixel; ``left_out`` says of broken objects
    what is wrong, where they cost no more than themselves; ``apart`` why masks and boxes can't both be right."""

    instances: Instances
    faults: dict[int, str]
    stray: tuple[str, ...]
    beyond: int
    left_out: tuple[str, ...] = ()
    apart: str | None = None


def read_instances(
    stream: TextIO,
    *,
    max_megapixels: float,
    categories: Categories | None = None,
    masked: bool | None = None,
    skip_objects: bool = False,
    max_objects: int | None = None,
) -> Read:
    """``categories`` and ``masked`` are the file's own unless given; a file is masked if any of its objects is.
    A broken object makes its picture broken, or with ``skip_objects`` is left out; more than ``max_objects`` do too.

    Raises:
        ValueError: damaged, lists missing, entries whose numbers and names are none, or, in a file with categories of
            its own, boxes that are none of COCO's.
    """
    reader = _Reader()
    take = {"images": reader.image, "annotations": reader.annotation, "categories": reader.category}
    if categories is not None:
        del take["categories"]
    there = read_sections(stream, take)
    if missing := [key for key in take if key not in there]:
        raise ValueError(f"no list of {' and of '.join(missing)} in it: it is no COCO file of instances")
    instances, of_image, images, known = reader.finished(categories or reader.categories(), masked)
    if categories is None:
        check_convention(instances, of_image)
    faults, objects, stray, beyond = find_faults(
        instances, of_image, images, known, max_megapixels, max_objects
    )
    left_out: tuple[str, ...] = ()
    if skip_objects:
        instances = instances.without(np.array([*objects], np.int64))
        left_out = tuple(objects.values())
    else:
        faults = of_pictures(objects, of_image) | faults
    return Read(instances, faults, stray, beyond, left_out, apart_from_outlines(instances, of_image))


class _Reader:
    """Takes one entry after another."""

    def __init__(self) -> None:
        self.image_ids, self.sides = array("q"), array("q")
        self.file_names: list[str] = []
        self.names: dict[int, str] = {}
        self.ids, self.images, self.labels, self.boxes = array("q"), array("q"), array("q"), array("d")
        self.areas, self.crowd = array("d"), bytearray()
        self.kinds, self.part_counts, self.part_lengths = bytearray(), array("q"), array("q")
        self.numbers, self.declared = array("d"), array("q")
        self.faults: list[Fault] = []

    def image(self, entry: Any) -> None:
        what = f"images[{len(self.file_names)}]"
        number, height, width = (_whole(entry, key, what) for key in ("id", "height", "width"))
        if not isinstance(name := entry.get("file_name"), str) or not name:
            raise ValueError(f"{what} (id {number}): file_name is {name!r:.40}, expected the picture's name")
        self.image_ids.append(number)
        self.sides.extend((height, width))
        # As written on Windows; in a file of COCO's a path has slashes.
        self.file_names.append(name.replace("\\", "/"))

    def category(self, entry: Any) -> None:
        what = f"categories[{len(self.names)}]"
        number, name = _whole(entry, "id", what), entry.get("name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{what} (id {number}): name is {name!r:.40}, expected text")
        if number in self.names:
            raise ValueError(f"{what}: id {number} is {self.names[number]!r} already; give each its own")
        self.names[number] = name

    def annotation(self, entry: Any) -> None:
        what = f"annotations[{len(self.ids)}]"
        number = _whole(entry, "id", what)
        self.images.append(_whole(entry, "image_id", what))
        self.labels.append(_whole(entry, "category_id", what))
        self.ids.append(number)
        row = len(self.ids) - 1
        try:
            self._box(entry)
            self._outline(entry.get("segmentation"))
        except (_Wrong, ValueError) as error:
            self.faults.append((row, str(error)))
        self.boxes.extend(_NAN_BOX[: 4 * len(self.ids) - len(self.boxes)])
        self.areas.extend([0.0] * (len(self.ids) - len(self.areas)))
        self.crowd.extend([0] * (len(self.ids) - len(self.crowd)))
        if len(self.kinds) < len(self.ids):
            self._close(NO_MASK, 0, (0, 0))

    def _box(self, entry: dict[str, Any]) -> None:
        box, area, crowd = entry.get("bbox"), entry.get("area"), entry.get("iscrowd", 0)
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            raise _Wrong(f"bbox is {box!r:.60}, expected x, y, width, height")
        self.boxes.extend(map(float, box))
        area = box[2] * box[3] if area is None else area
        if not _is_number(area):
            raise _Wrong(f"area is {area!r:.40}, expected a number of pixels")
        if type(crowd) not in (int, bool) or crowd not in (0, 1):
            raise _Wrong(f"iscrowd is {crowd!r:.40}, expected 0 or 1")
        self.areas.append(float(area))
        self.crowd.append(crowd)

    def _outline(self, value: Any) -> None:
        """COCO's ``segmentation``: polygons, run lengths, or nothing."""
        if not value:
            return
        before = len(self.numbers), len(self.part_lengths)
        try:
            if isinstance(value, list):
                for polygon in value:
                    if not isinstance(polygon, list):
                        raise _Wrong("segmentation is one list of numbers, expected a list of polygons")
                    self.numbers.extend(polygon)
                    self.part_lengths.append(len(polygon))
                self._close(POLYGONS, len(value), (0, 0))
            elif isinstance(value, dict):
                self.numbers.extend(read_counts(value.get("counts"), limit=_LARGEST))
                self.part_lengths.append(len(self.numbers) - before[0])
                self._close(RUN_LENGTHS, 1, _declared(value.get("size")))
            else:
                raise _Wrong(f"segmentation is {value!r:.40}, expected polygons or run lengths")
        except (_Wrong, ValueError, TypeError, OverflowError) as error:
            del self.numbers[before[0] :], self.part_lengths[before[1] :]
            if isinstance(error, TypeError | OverflowError):
                raise _Wrong("segmentation holds something that is no number") from None
            raise

    def _close(self, kind: int, parts: int, declared: tuple[int, int]) -> None:
        self.kinds.append(kind)
        self.part_counts.append(parts)
        self.declared.extend(declared)

    def categories(self) -> Categories:
        names = tuple(self.names[number] for number in sorted(self.names))
        if not names:
            raise ValueError("the list of categories is empty")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two categories are called {twice!r}; give each its own name")
        return Categories(np.array(sorted(self.names), np.int64), names)

    def finished(
        self, categories: Categories, masked: bool | None
    ) -> tuple[Instances, Ints, Ints, list[Fault]]:
        """What was read, each object's place among the pictures (-1: none) and its picture's number, and the faults
        that were met."""
        if not self.file_names:
            raise ValueError("no picture in it")
        image_ids, images = _ints(self.image_ids), _ints(self.images)
        labels, known = _places(categories.ids, _ints(self.labels))
        of_image, there = _places(image_ids, images)
        kinds = np.frombuffer(self.kinds, np.int8)
        outlines = Outlines(
            kinds, _edges(self.part_counts), _edges(self.part_lengths), _floats(self.numbers),
            _ints(self.declared).reshape(-1, 2),
        )  # fmt: skip
        order = np.argsort(of_image, kind="stable")[np.count_nonzero(~there) :]
        bounds = np.searchsorted(of_image[order], np.arange(len(image_ids) + 1))
        instances = Instances(
            image_ids, _ints(self.sides).reshape(-1, 2), self.file_names, categories.ids, categories.names,
            _ints(self.ids), labels.astype(np.int32), _floats(self.boxes).reshape(-1, 4), _floats(self.areas),
            np.frombuffer(self.crowd, np.bool_), outlines, order, bounds,
            bool(kinds.any()) if masked is None else masked,
        )  # fmt: skip
        named = _ints(self.labels)
        return instances, of_image, images, [*self.faults, *_unknown(named, known)]


class _Wrong(Exception):
    """A fault of one object."""


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**53)


def _whole(entry: Any, key: str, what: str) -> int:
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is float and value.is_integer():  # 64.0, as pandas writes a column with gaps
        value = int(value)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{what}: {key} is {value!r:.40}, expected a whole number")
    return value


def _declared(size: Any) -> tuple[int, int]:
    """The (height, width) that run lengths say they have."""
    if isinstance(size, list) and len(size) == 2:
        height, width = size
        if type(height) is type(width) is int and min(size) > 0 and max(size) <= _LARGEST:
            return height, width
    raise _Wrong(f"run lengths of size {size!r:.60}, expected [height, width]")


def _ints(values: array) -> Ints:  # type: ignore[type-arg]  # array says its type only as text
    return np.frombuffer(values, np.int64) if len(values) else np.zeros(0, np.int64)


def _floats(values: array) -> Floats:  # type: ignore[type-arg]
    return np.frombuffer(values, np.float64) if len(values) else np.zeros(0)


def _edges(counts: array) -> Ints:  # type: ignore[type-arg]
    return np.concatenate([[0], np.cumsum(_ints(counts))]).astype(np.int64)


def _places(numbers: Ints, wanted: Ints) -> tuple[Ints, np.ndarray]:
    """Where in ``numbers`` each of ``wanted`` stands, -1 where it does not; and whether it does."""
    order = np.argsort(numbers, kind="stable")
    place = np.searchsorted(numbers, wanted, sorter=order)
    place = order[np.minimum(place, len(numbers) - 1)]
    there = numbers[place] == wanted
    return np.where(there, place, -1), there


def _unknown(categories: Ints, known: np.ndarray) -> list[Fault]:
    return [
        (row, f"category {categories[row]} is not in the file's list")
        for row in np.flatnonzero(~known).tolist()
    ]

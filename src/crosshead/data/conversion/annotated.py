"""What every tool's annotations are read into: pictures, their objects or maps, and what was left out."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crosshead.data.coco.rle import RLE, decode_columns
from crosshead.data.decode.images import display_name
from crosshead.files import printable

Points = NDArray[np.float64]  # (n, 2) x and y in pixels, 0 at the picture's left and upper edge
SPLITS = ("train", "validation", "test")
_WORDS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}


@dataclass(frozen=True)
class DrawnObject:
    """``box`` is x1, y1, x2, y2 in pixels; the outline, where there is one, ``polygons`` or a ``mask``. ``crowd``: it
    is neither to be learned nor a mistake to find. ``area`` is what the source says, else that of the outline."""

    label: str
    box: tuple[float, float, float, float]
    polygons: tuple[Points, ...] = ()
    mask: RLE | None = None
    crowd: bool = False
    stated_area: float | None = None

    @property
    def area(self) -> float:
        if self.stated_area is not None:
            return self.stated_area
        if self.polygons:
            return sum(polygon_area(points) for points in self.polygons)
        if self.mask is not None:
            return float(self.mask.area)
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


@dataclass(frozen=True)
class AnnotatedPicture:
    """``file`` holds the picture, or ``content`` its bytes; ``name`` is its path below the source's pictures; ``size``
    (height, width) as a person sees it. ``map_file`` holds its classes where the source has maps."""

    file: Path
    name: str
    size: tuple[int, int]
    objects: tuple[DrawnObject, ...] = ()
    split: str | None = None
    content: bytes | None = None
    map_file: Path | None = None


@dataclass
class LeftOut:
    """What of the source does not come through: by reason how often, and where it was met first."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, where: object, count: int = 1) -> None:
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count
            self.first.setdefault(reason, display_name(where) if isinstance(where, Path) else str(where))

    def lines(self) -> list[str]:
        return [
            printable(f"{count:,} {reason} ({self.first[reason]})") for reason, count in self.counts.items()
        ]


@dataclass(frozen=True)
class Annotations:
    """All that a source says. ``form`` names its tool; ``class_ids`` are its own numbers of the classes; ``notes`` say
    how it was understood. ``maps``: pixels have classes, and there are no objects."""

    form: str
    pictures: tuple[AnnotatedPicture, ...]
    class_names: tuple[str, ...]
    left_out: LeftOut
    notes: tuple[str, ...] = ()
    class_ids: tuple[int, ...] | None = None
    maps: bool = False

    def of(self, split: str | None) -> list[AnnotatedPicture]:
        return [picture for picture in self.pictures if picture.split == split]


def polygon_area(points: Points) -> float:
    """Of a polygon that does not cross itself."""
    x, y = points.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def outlined(
    label: str, polygons: Sequence[Points] = (), mask: RLE | None = None, *, crowd: bool = False
) -> DrawnObject:
    """The object of an outline, whose box is that of the outline."""
    if mask is not None:
        return DrawnObject(label, _box_of(mask), mask=mask, crowd=crowd)
    points = np.concatenate([*polygons]) if polygons else np.zeros((0, 2))
    low, high = (points.min(0), points.max(0)) if len(points) else (points.sum(0),) * 2
    box = float(low[0]), float(low[1]), float(high[0]), float(high[1])
    return DrawnObject(label, box, tuple(polygons), crowd=crowd)


def _box_of(mask: RLE) -> tuple[float, float, float, float]:
    first, columns = decode_columns(mask)
    rows = np.flatnonzero(columns.any(0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(first), float(rows[0]), float(first + len(columns)), float(rows[-1] + 1)


def fault_of(each: DrawnObject, size: tuple[int, int]) -> str | None:
    """Why an object is none, in words that begin with "objects"."""
    x1, y1, x2, y2 = each.box
    if not all(map(math.isfinite, each.box)):
        return "objects with numbers that are not finite"
    if not (x2 > x1 and y2 > y1):
        return "objects without width or height"
    if x1 >= size[1] or y1 >= size[0] or x2 <= 0 or y2 <= 0:
        return "objects outside their picture"
    if any(len(points) < 3 for points in each.polygons):
        return "objects whose polygon has fewer than three points"
    return None


def sound(
    objects: Iterable[DrawnObject], size: tuple[int, int], where: Path, left_out: LeftOut
) -> tuple[DrawnObject, ...]:
    """Those with which nothing is wrong."""
    kept = []
    for each in objects:
        if (fault := fault_of(each, size)) is None:
            kept.append(each)
        else:
            left_out.add(fault, where)
    return tuple(kept)


def split_by_folder(parts: Iterable[str]) -> str | None:
    """What the folders (or a file's stem) of a path say: train, validation or test, or nothing."""
    said = {SPLITS[_WORDS[part.lower()]] for part in parts if part.lower() in _WORDS}
    return said.pop() if len(said) == 1 else None


def labels_of(pictures: Iterable[AnnotatedPicture]) -> list[str]:
    """In the order of their names, for sources that have no list."""
    return sorted({each.label for picture in pictures for each in picture.objects})


def only_classes(annotations: Annotations, names: Sequence[str]) -> Annotations:
    """With the classes ``names``, in that order; objects of others are left out."""
    known, pictures = set(names), []
    for picture in annotations.pictures:
        kept = tuple(each for each in picture.objects if each.label in known)
        for each in picture.objects:
            if each.label not in known:
                annotations.left_out.add(f"objects of class {each.label!r}, not in the list", picture.file)
        pictures.append(replace(picture, objects=kept))
    return replace(annotations, pictures=tuple(pictures), class_names=tuple(names), class_ids=None)

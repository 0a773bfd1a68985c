"""What is wrong with the objects that a COCO file tells of, each named by its number."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from crosshead.data.coco.instances import POLYGONS, RUN_LENGTHS, Instances, Ints

Bools = NDArray[np.bool_]
Fault = tuple[int, str]  # of an object, or a picture: its row, and why
_FEWEST = 6  # numbers of a polygon
_FAR = 1  # of a picture's longer sides that a box or a polygon may reach beyond it
_SLACK = 1.0  # pixels by which rounding may carry a box beyond its picture


def find_faults(
    instances: Instances,
    of_image: Ints,
    images: Ints,
    found: Iterable[Fault],
    max_megapixels: float,
    max_objects: int | None,
) -> tuple[dict[int, str], dict[int, str], tuple[str, ...], int]:
    """By picture, why it is broken; by object, why it is; the objects whose picture ``images`` (A,) the file does not
    have, in words; and how many boxes reach beyond their pictures.

    ``of_image`` (A,) is each object's picture, -1 where there is none; ``found`` are faults of objects known already.
    """
    faults = dict(_of_pictures(instances, max_megapixels, max_objects))
    objects: dict[int, str] = {}
    with np.errstate(invalid="ignore", over="ignore"):
        sizes = instances.sizes[of_image]
        checks = [found, _numbers(instances), _boxes(instances, sizes), _outlines(instances, sizes)]
    for check in checks:
        for row, why in check:
            objects.setdefault(row, why)
    words = {
        row: f"annotation {instances.ids[row]}: {objects[row]}"
        for row in sorted(objects)
        if of_image[row] >= 0
    }
    stray = tuple(
        f"annotation {instances.ids[row]} of image {images[row]}"
        for row in np.flatnonzero(of_image < 0).tolist()
    )
    return faults, words, stray, _beyond(instances, sizes, of_image >= 0)


def of_pictures(objects: dict[int, str], of_image: Ints) -> dict[int, str]:
    """By picture, what is wrong with its objects."""
    by_picture: dict[int, list[str]] = {}
    for row, why in objects.items():
        by_picture.setdefault(int(of_image[row]), []).append(why)
    return {
        place: reasons[0]
        + (f" (and {len(reasons) - 1} more of its annotations are wrong)" if len(reasons) > 1 else "")
        for place, reasons in by_picture.items()
    }


def _of_pictures(instances: Instances, max_megapixels: float, max_objects: int | None) -> Iterator[Fault]:
    counts = np.diff(instances.bounds)
    for row in np.flatnonzero(
        counts > (counts.max(initial=0) if max_objects is None else max_objects)
    ).tolist():
        yield (
            row,
            f"image {instances.image_ids[row]} has {counts[row]:,} objects, above the limit of {max_objects:,} "
            "(data.max_objects)",
        )
    height, width = instances.sizes.T
    least = instances.sizes.min(1, initial=1)
    large = height.astype(float) * width > max_megapixels * 1e6
    for row in np.flatnonzero(_repeated(instances.image_ids)).tolist():
        yield row, f"image id {instances.image_ids[row]} is there more than once"
    for row in np.flatnonzero((least < 1) | large).tolist():
        limit = "" if least[row] < 1 else f", above {max_megapixels:g} megapixels (data.max_megapixels)"
        yield (
            row,
            f"image {instances.image_ids[row]} is said to have {width[row]} x {height[row]} pixels{limit}",
        )
    names: dict[str, int] = {}
    first = [names.setdefault(name, row) for row, name in enumerate(instances.file_names)]
    for row in np.flatnonzero(_repeated(np.array(first, np.int64))).tolist():
        yield row, f"image {instances.image_ids[row]}: another entry has this file_name too"


def _repeated(numbers: Ints) -> np.ndarray:
    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return counts[place] > 1


def _numbers(instances: Instances) -> Iterator[Fault]:
    for row in np.flatnonzero(_repeated(instances.ids)).tolist():
        yield row, "this number is there more than once"


def _boxes(instances: Instances, sizes: Ints) -> Iterator[Fault]:
    x, y, wide, high = instances.boxes.T
    unsound: Bools = ~np.all(np.isfinite(instances.boxes), axis=1)
    empty: Bools = ~((wide > 0) & (high > 0))
    outside = (x >= sizes[:, 1]) | (y >= sizes[:, 0]) | (x + wide <= 0) | (y + high <= 0)
    longest = sizes.max(1, initial=0)
    far = (np.minimum(x, y) < -_FAR * longest) | (np.maximum(x + wide, y + high) > (1 + _FAR) * longest)
    for row in np.flatnonzero(outside | far | unsound | empty).tolist():
        height, width = sizes[row]
        box = "[" + ", ".join(f"{side:g}" for side in instances.boxes[row]) + "]"
        if unsound[row] or empty[row]:
            yield row, f"box {box} is {'not finite' if unsound[row] else 'empty'}"
        else:
            how = "lies" if outside[row] else "reaches far"
            yield row, f"box {box} {how} outside the picture of {width} x {height}"
    for row in np.flatnonzero(~(np.isfinite(instances.areas) & (instances.areas >= 0))).tolist():
        yield row, f"area is {instances.areas[row]:g}"


def _beyond(instances: Instances, sizes: Ints, there: np.ndarray) -> int:
    low, high = instances.boxes[:, :2], instances.boxes[:, :2] + instances.boxes[:, 2:]
    over = np.any((low < -_SLACK) | (high > sizes[:, ::-1] + _SLACK), axis=1)
    return int(np.count_nonzero(over & there))


def _outlines(instances: Instances, sizes: Ints) -> Iterator[Fault]:
    outlines = instances.outlines
    lengths = np.diff(outlines.begin)
    rows = np.repeat(np.arange(len(outlines.kinds)), np.diff(outlines.first))
    low, high = (np.zeros(len(lengths)) for _ in range(2))
    if len(filled := np.flatnonzero(lengths)):
        # NaN comes out where it is among a part's numbers.
        low[filled] = np.minimum.reduceat(outlines.numbers, outlines.begin[filled])
        high[filled] = np.maximum.reduceat(outlines.numbers, outlines.begin[filled])
    kinds = outlines.kinds[rows]
    yield from _polygons(rows, lengths, low, high, kinds == POLYGONS, sizes[rows])
    yield from _run_lengths(instances, rows, low, kinds == RUN_LENGTHS, sizes)


def _polygons(
    rows: Ints, lengths: Ints, low: np.ndarray, high: np.ndarray, of_kind: np.ndarray, sizes: Ints
) -> Iterator[Fault]:
    for part in np.flatnonzero(of_kind & ((lengths < _FEWEST) | (lengths % 2 == 1))).tolist():
        yield (
            int(rows[part]),
            f"a polygon of {lengths[part]} numbers; expected x and y of three points or more",
        )
    for part in np.flatnonzero(of_kind & ~(np.isfinite(low) & np.isfinite(high))).tolist():
        yield int(rows[part]), "a polygon has a number that is not finite"
    # Its outline is drawn in memory before it is cut off.
    longest = sizes.max(1, initial=0)
    for part in np.flatnonzero(of_kind & ((low < -_FAR * longest) | (high > (1 + _FAR) * longest))).tolist():
        height, width = sizes[part]
        yield int(rows[part]), f"a polygon lies far outside the picture of {width} x {height}"


def _run_lengths(
    instances: Instances, rows: Ints, low: np.ndarray, of_kind: np.ndarray, sizes: Ints
) -> Iterator[Fault]:
    outlines = instances.outlines
    for part in np.flatnonzero(of_kind).tolist():
        row = int(rows[part])
        if (outlines.declared[row] != sizes[row]).any():
            (high, wide), (height, width) = outlines.declared[row], sizes[row]
            yield row, f"run lengths of {wide} x {high} pixels, but the picture has {width} x {height}"
            continue
        counts = outlines.numbers[outlines.begin[part] : outlines.begin[part + 1]]
        total, pixels = counts.sum(), int(sizes[row].prod())
        if low[part] < 0 or total != pixels:
            why = "a negative count" if low[part] < 0 else f"{total:.0f} pixels, but the picture has {pixels}"
            yield row, f"run lengths with {why}" if low[part] < 0 else f"run lengths of {why}"

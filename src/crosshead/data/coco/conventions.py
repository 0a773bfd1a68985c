"""Boxes that are none of COCO's, which are [x, y, width, height] in pixels: told from a whole file, never from one box.

A file is refused where chance can't be the reason: all of its boxes lie within a picture's first pixel (shares of the
picture); of eight or more nearly all fit as corners, and a quarter would reach far beyond its picture otherwise; or its
polygons say how the boxes are meant.
"""

from collections.abc import Callable

import numpy as np

from crosshead.data.coco.instances import POLYGONS, Floats, Instances, Ints

_LOOKED_AT = 2000  # objects with polygons, spread over the file
_FEWEST = 8  # boxes that tell how all are meant without a polygon
_NEARLY_ALL = 0.99
_SMALLEST = 8  # pixels of a picture's side: in a smaller one a box may be a pixel
_APART = 0.5  # overlap of a box and its polygon's box, below which they are not of one object
_SLACK = 1.0  # pixels of rounding


def check_convention(instances: Instances, of_image: Ints) -> None:
    """ValueError where the boxes are shares of the picture, corners, or centre and size."""
    rows = _sound(instances, of_image)
    boxes, sizes = instances.boxes[rows], instances.sizes[of_image[rows]]
    if len(rows) < 2:
        return
    if boxes.min() >= 0 and boxes.max() <= 1 and sizes.min() >= _SMALLEST:
        raise ValueError(
            f"all {len(rows):,} boxes have numbers from 0 to 1 ({_first(instances, rows)}): shares of the picture. "
            "Wanted pixels, [x, y, width, height]: multiply by the picture's width and height, polygons too"
        )
    own, others = _overlaps(instances, rows)
    meant = next((name for name, overlap in others.items() if _are(overlap) and not _are(own)), None)
    if meant is None and len(rows) >= _FEWEST and not len(own) and _fit_as_corners(boxes, sizes):
        meant = "corners"
    if meant is not None:
        raise ValueError(
            f"the boxes are {meant} ({_first(instances, rows)}). Wanted [x, y, width, height] in pixels, of "
            f"which x and y are the top left corner: {_REMEDIES[meant]}"
        )


def apart_from_outlines(instances: Instances, of_image: Ints) -> str | None:
    """What to say where most boxes lie apart from their polygons: which of the two is right is not to be told."""
    rows = _sound(instances, of_image)
    own = _overlaps(instances, rows)[0]
    far = int(np.count_nonzero(own < _APART))
    if 2 * far <= len(own):
        return None
    return (
        f"the boxes of {far:,} of {len(own):,} objects lie apart from their polygons: they are of other pictures, of "
        "another size or shape; export both anew, or learn from the boxes alone (model.detector.name=faster_rcnn or "
        "retinanet)"
    )


def _sound(instances: Instances, of_image: Ints) -> Ints:
    """Which objects are of a picture, no crowd, and have four numbers."""
    sound = np.isfinite(instances.boxes).all(1) & (of_image >= 0) & ~instances.crowd
    return np.flatnonzero(sound)


def _first(instances: Instances, rows: Ints) -> str:
    box = ", ".join(f"{side:g}" for side in instances.boxes[rows[0]])
    return f"annotation {instances.ids[rows[0]]}: [{box}]"


def _fit_as_corners(boxes: Floats, sizes: Ints) -> bool:
    most = sizes[:, ::-1]
    low, high = boxes[:, :2], boxes[:, 2:]
    fits = ((high > low) & (high <= most + _SLACK) & (low >= -_SLACK)).all(1)
    beyond = (low + high > 1.1 * most).any(1)
    return bool(fits.mean() >= _NEARLY_ALL and beyond.mean() >= 0.25)


_READINGS: dict[str, Callable[[Floats], Floats]] = {
    "corners": lambda box: box,
    "centre and size": lambda box: np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2]),
}
_REMEDIES = {
    "corners": "[x1, y1, x2, y2] becomes [x1, y1, x2 - x1, y2 - y1]",
    "centre and size": "[cx, cy, width, height] becomes [cx - width / 2, cy - height / 2, width, height]",
}


def _overlaps(instances: Instances, rows: Ints) -> tuple[Floats, dict[str, Floats]]:
    """Of objects with polygons, how much of their box and of the polygons' is common to both (intersection over union):
    as COCO means boxes, and as others do."""
    outlines = instances.outlines
    drawn = rows[outlines.kinds[rows] == POLYGONS]
    drawn = drawn[:: max(1, len(drawn) // _LOOKED_AT)]
    own: list[float] = []
    others: dict[str, list[float]] = {name: [] for name in _READINGS}
    for k in drawn.tolist():
        points = [part for part in outlines.parts(k) if len(part) and len(part) % 2 == 0]
        numbers = np.concatenate(points).reshape(-1, 2) if points else np.zeros((0, 2))
        if not len(numbers) or not np.isfinite(numbers).all():
            continue
        extent = np.concatenate([numbers.min(0), numbers.max(0)])
        box = instances.boxes[k]
        own.append(_overlap(np.concatenate([box[:2], box[:2] + box[2:]]), extent))
        for name, reading in _READINGS.items():
            others[name].append(_overlap(reading(box), extent))
    return np.array(own), {name: np.array(overlap) for name, overlap in others.items()}


def _overlap(one: Floats, other: Floats) -> float:
    """Of two boxes (4,) x1, y1, x2, y2; a pixel is added to each side, so that a line has an area."""
    common = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]) + 1
    areas = [float(np.prod(np.maximum(each[2:] - each[:2] + 1, 0))) for each in (one, other)]
    shared = float(np.prod(np.maximum(common, 0)))
    return shared / max(sum(areas) - shared, 1e-9)


def _are(overlaps: Floats) -> bool:
    """Whether nearly all boxes are those of their polygons; a single one tells nothing."""
    return len(overlaps) > 1 and bool((overlaps > 0.8).mean() >= 0.9)

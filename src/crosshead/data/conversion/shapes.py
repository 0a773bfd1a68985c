"""Shapes that tools draw and COCO has not, as polygons; polygons cut off at a rectangle; polygons as pixels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crosshead.data.coco.rle import RLE, parse
from crosshead.data.conversion.annotated import DrawnObject, Points
from crosshead.libraries import need

_CORNERS = 72  # of a circle: its area is 0.13 % below the circle's


def circle(centre: Points, radius: float) -> Points:
    return ellipse(centre, (radius, radius), 0.0)


def ellipse(centre: Points | Sequence[float], radii: tuple[float, float], degrees: float) -> Points:
    """(72, 2); turned by ``degrees`` clockwise, as the picture is seen."""
    angles = np.arange(_CORNERS) * (2 * np.pi / _CORNERS)
    return turned(np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], 1), degrees) + np.asarray(
        centre
    )


def turned(points: Points, degrees: float) -> Points:
    """About 0, clockwise as the picture is seen."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return points @ np.array([[cos, sin], [-sin, cos]])


def rectangle(box: Sequence[float], degrees: float = 0.0) -> Points:
    """The corners (4, 2) of x1, y1, x2, y2, turned about the centre."""
    x1, y1, x2, y2 = box
    centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    return turned(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) - centre, degrees) + centre


def clipped(points: Points, low: tuple[float, float], high: tuple[float, float]) -> Points:
    """What of a polygon lies between the corners ``low`` and ``high`` (x, y), by Sutherland and Hodgman (CACM 17,
    1974); (0, 2) where nothing does. Pieces that come apart stay joined by lines along the border, without area."""
    for axis in (0, 1):
        for border, sign in ((low[axis], 1.0), (high[axis], -1.0)):
            if len(points) == 0:
                return points
            inside = sign * (points[:, axis] - border) >= 0
            kept = []
            for i in range(len(points)):
                here, there = points[i - 1], points[i]
                if inside[i] != inside[i - 1]:
                    share = (border - here[axis]) / (there[axis] - here[axis])
                    kept.append(here + share * (there - here))
                if inside[i]:
                    kept.append(there)
            points = np.array(kept).reshape(-1, 2)
    return points


def pixels_of(each: DrawnObject, size: tuple[int, int]) -> RLE | None:
    """The outline of an object on a picture of ``size`` (height, width), polygons as COCO's own code draws them; None
    for a box alone."""
    if each.mask is not None:
        return each.mask
    if not each.polygons:
        return None
    drawing = need("faster_coco_eval").mask
    parts = drawing.frPyObjects([points.ravel().tolist() for points in each.polygons], *size)
    return parse(drawing.merge(parts), size)


def number_map(
    objects: Sequence[DrawnObject], numbers: dict[str, int], size: tuple[int, int], ignored: int
) -> NDArray[np.uint8]:
    """A map (height, width): 0, and the number of each object's class where it lies, later ones over earlier ones;
    ``ignored`` where there is a crowd, or a class that has no number."""
    from crosshead.data.coco.rle import decode_columns

    out = np.zeros(size, np.uint8)
    for each in objects:
        if (mask := pixels_of(each, size)) is not None:
            first, columns = decode_columns(mask)
            value = ignored if each.crowd else numbers.get(each.label, ignored)
            out[:, first : first + len(columns)][columns.T] = value
    return out

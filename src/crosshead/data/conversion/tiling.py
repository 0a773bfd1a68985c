"""Large pictures cut into tiles, with what is annotated in each.

An object that a tile's border cuts is kept with what is left of it, where that is at least ``least`` of what such a
tile could show of it; less than that is a crowd, neither to be learned nor a mistake to find, because something of it
is to be seen. Tiles are evenly spread, overlap by ``overlap`` of a side or more, and end where the picture ends.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from crosshead.data.coco.rle import RLE, decode_columns, encode_within
from crosshead.data.conversion.annotated import AnnotatedPicture, DrawnObject, outlined
from crosshead.data.conversion.shapes import clipped

Place = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class Tiling:
    """``side`` in pixels; ``overlap`` of neighbours as a share of it; ``least`` as above; ``empty`` is the share of
    tiles without an object that is kept, chosen by their names."""

    side: int
    overlap: float = 0.2
    least: float = 0.5
    empty: float = 0.1

    def __post_init__(self) -> None:
        if self.side < 32:
            raise ValueError(f"--tile: expected at least 32 pixels, got {self.side}")
        for name, share in (("--overlap", self.overlap), ("--least", self.least), ("--empty", self.empty)):
            if not 0 <= share <= 1 or (name == "--overlap" and share > 0.9):
                raise ValueError(
                    f"{name}: expected a share from 0 to {0.9 if name == '--overlap' else 1}, got {share:g}"
                )

    def places(self, size: tuple[int, int]) -> Iterator[Place]:
        """Of a picture of ``size`` (height, width); the whole of one that is no larger than a tile."""
        height, width = min(self.side, size[0]), min(self.side, size[1])
        for top in _starts(size[0], height, self.overlap):
            for left in _starts(size[1], width, self.overlap):
                yield top, left, height, width

    def keeps_empty(self, name: str) -> bool:
        drawn = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        return drawn < self.empty * 2**64


def _starts(length: int, side: int, overlap: float) -> list[int]:
    count = math.ceil((length - side) / (side * (1 - overlap)))
    return sorted({round((length - side) * i / max(count, 1)) for i in range(count + 1)})


def tile_of(picture: AnnotatedPicture, place: Place, tiling: Tiling) -> AnnotatedPicture:
    """What of ``picture`` is in a tile; its name says where it lies."""
    top, left, height, width = place
    whole = (height, width) == picture.size
    path = PurePosixPath(picture.name)
    # Of a file's suffix too: a.png and a.jpg are two pictures.
    stem = path.name.replace(".", "_") if not whole else path.stem
    name = path.with_name(f"{stem}_y{top}_x{left}.png") if not whole else path
    objects = (
        picture.objects
        if whole
        else tuple(cut for each in picture.objects if (cut := cut_object(each, place, tiling)) is not None)
    )
    return replace(picture, name=str(name), size=(height, width), objects=objects)


def cut_object(each: DrawnObject, place: Place, tiling: Tiling) -> DrawnObject | None:
    """What is left of an object in a tile, in the tile's pixels; None where nothing is."""
    top, left, height, width = place
    x1, y1, x2, y2 = each.box
    inside = x1 >= left and y1 >= top and x2 <= left + width and y2 <= top + height
    moved = (max(x1 - left, 0), max(y1 - top, 0), min(x2 - left, width), min(y2 - top, height))
    if moved[2] <= moved[0] or moved[3] <= moved[1]:
        return None
    shift = np.array([left, top], np.float64)
    if inside:
        own = tuple(points - shift for points in each.polygons)
        mask = None if each.mask is None else _cut_mask(each.mask, place)
        return replace(each, box=_moved(each.box, left, top), polygons=own, mask=mask)
    if each.mask is not None:
        cut = outlined(each.label, mask=_cut_mask(each.mask, place), crowd=each.crowd)
        share = cut.area / max(1, min(each.mask.area, height * width))
    elif each.polygons:
        parts = [clipped(points - shift, (0, 0), (width, height)) for points in each.polygons]
        cut = outlined(each.label, [points for points in parts if len(points) >= 3], crowd=each.crowd)
        share = cut.area / max(1e-9, min(replace(each, stated_area=None).area, height * width))
    else:
        cut = DrawnObject(each.label, moved, crowd=each.crowd)
        share = cut.area / (min(x2 - x1, width) * min(y2 - y1, height))
    if cut.area <= 0:
        return None
    return cut if share >= tiling.least else replace(cut, crowd=True)


def _moved(box: tuple[float, ...], left: int, top: int) -> tuple[float, float, float, float]:
    return box[0] - left, box[1] - top, box[2] - left, box[3] - top


def _cut_mask(mask: RLE, place: Place) -> RLE:
    top, left, height, width = place
    first, columns = decode_columns(mask)
    begin, end = max(first, left), min(first + len(columns), left + width)
    piece = columns[begin - first : max(end, begin) - first, top : top + height].T
    return encode_within(piece, (0, max(begin - left, 0)), (height, width))

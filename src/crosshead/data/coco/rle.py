"""Masks as run lengths, in COCO's form: column by column, background first.

Read here, not by a library's C code, because files from elsewhere are not to be trusted: a count that overflows or
a size of terabytes is a ValueError before anything is allocated.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RLE:
    """``counts`` of pixels, background and object in turn, of a mask of ``size`` (height, width)."""

    size: tuple[int, int]
    counts: NDArray[np.int64]

    @property
    def area(self) -> int:
        """Pixels of the object."""
        return int(self.counts[1::2].sum())


def encode(mask: NDArray[np.bool_]) -> RLE:
    """Of a mask (height, width)."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    counts = np.diff(bounds)
    if flat.size and flat[0]:
        counts = np.concatenate([[0], counts])
    return RLE((mask.shape[0], mask.shape[1]), counts.astype(np.int64))


def encode_within(piece: NDArray[np.bool_], place: tuple[int, int], size: tuple[int, int]) -> RLE:
    """Of a mask of ``size`` (height, width) that is empty but for ``piece``, whose top left corner is at ``place``
    (row, column); in the time and the memory that the piece takes."""
    # An empty row above and below: no run goes on from the foot of a column to the head of the next.
    columns = np.pad(piece, ((1, 1), (0, 0))).T.astype(np.int8)
    column, row = np.nonzero(np.diff(columns, axis=1))
    edges = (column + place[1]) * size[0] + row + place[0]
    # A column that is full meets the next one where the piece is as high as the picture.
    met = np.flatnonzero(edges[1:-1:2] == edges[2::2])
    edges = np.delete(edges, np.concatenate([2 * met + 1, 2 * met + 2]))
    counts = np.diff(np.concatenate([[0], edges, [size[0] * size[1]]]))
    return RLE(size, (counts if counts[-1] or len(counts) == 1 else counts[:-1]).astype(np.int64))


def decode(rle: RLE) -> NDArray[np.bool_]:
    """The mask (height, width)."""
    values = np.arange(len(rle.counts)) % 2 == 1
    return np.repeat(values, rle.counts).reshape(rle.size, order="F")


def decode_columns(rle: RLE) -> tuple[int, NDArray[np.bool_]]:
    """Which column is the first with a pixel of the object, and from it to the last one the columns, (n, height): of a
    small object far less than the whole mask."""
    height, width = rle.size
    counts = rle.counts
    if not rle.area:
        return 0, np.zeros((0, height), bool)
    first = int(counts[0]) // height
    behind = int(counts[-1]) if len(counts) % 2 else 0
    last = width - behind // height
    counts = counts.copy()
    counts[0] -= first * height
    counts[-1] -= (width - last) * height
    return first, np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(last - first, height)


def parse(value: Any, size: tuple[int, int]) -> RLE:
    """COCO's ``{"size": [height, width], "counts": [...] or "..."}`` of a picture of ``size``.

    Raises:
        ValueError: another form or size, a negative count, or counts that don't fill the picture.
    """
    if not isinstance(value, dict) or "size" not in value or "counts" not in value:
        raise ValueError("run lengths need size and counts")
    if value["size"] != [*size]:
        raise ValueError(f"run lengths of size {value['size']!r:.60}, but the picture has {[*size]}")
    counts = read_counts(value["counts"], limit=size[0] * size[1])
    if any(not 0 <= count <= size[0] * size[1] for count in counts):
        raise ValueError("a count of the run lengths is negative or above the picture's pixels")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"run lengths of {sum(counts)} pixels, but the picture has {size[0] * size[1]}")
    return RLE(size, np.asarray(counts, dtype=np.int64))


def read_counts(counts: Any, *, limit: int) -> list[int]:
    """The counts of run lengths from COCO's compressed text, or from a list of whole numbers as it is.

    Raises:
        ValueError: neither, damaged text, or one in text that is negative or above ``limit``.
    """
    if isinstance(counts, str | bytes):
        return _uncompressed(counts.encode() if isinstance(counts, str) else counts, limit=limit)
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise ValueError("the counts of run lengths are neither text nor a list of whole numbers")
    return counts


def _uncompressed(text: bytes, *, limit: int) -> list[int]:
    """COCO's text: groups of five bits and one that says "more follows", from the fourth count on as differences."""
    counts: list[int] = []
    value = shift = 0
    for byte in text:
        bits = byte - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("the text of run lengths is damaged")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        if not 0 <= value <= limit:
            raise ValueError("a count of the run lengths is negative or above the picture's pixels")
        counts.append(value)
        value = shift = 0
    if shift:
        raise ValueError("the text of run lengths is cut short")
    return counts


def to_coco(rle: RLE) -> dict[str, Any]:
    """COCO's own form, with its compressed text."""
    text = bytearray()
    counts = rle.counts.tolist()
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text.append((bits | (32 if more else 0)) + 48)
    return {"size": [*rle.size], "counts": text.decode("ascii")}

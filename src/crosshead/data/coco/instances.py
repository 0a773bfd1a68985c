"""What a COCO file says of its pictures and their objects, held as arrays; and the objects of one picture."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosshead.data.coco.rle import RLE, decode, parse, to_coco
from crosshead.libraries import need

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NO_MASK, POLYGONS, RUN_LENGTHS = 0, 1, 2


@dataclass(frozen=True)
class Objects:
    """Of a picture of ``size`` (height, width) in pixels.

    ``boxes`` (n, 4) float64, x1, y1, x2, y2 in pixels; ``labels`` (n,) int64 from 0; ``crowd`` (n,) bool: what is
    neither right nor wrong to find (COCO's iscrowd); ``areas`` (n,) float64 in pixels; ``masks`` run lengths of each
    object, or None where there are boxes alone.
    """

    size: tuple[int, int]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    masks: Sequence[RLE] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def whole_masks(self) -> NDArray[np.bool_]:
        """(n, height, width), decoded."""
        assert self.masks is not None
        if not self.masks:
            return np.zeros((0, *self.size), dtype=bool)
        return np.stack([decode(mask) for mask in self.masks])


@dataclass(frozen=True)
class Outlines:
    """Of every object its mask, as the file has it.

    ``kinds`` (A,): ``NO_MASK``, ``POLYGONS`` or ``RUN_LENGTHS``. Object ``k`` has the parts ``first[k]`` to
    ``first[k + 1]`` (A + 1,): polygons, or the counts of run lengths. Part ``p`` has the
    ``numbers[begin[p] : begin[p + 1]]``.
    ``declared`` (A, 2) is the (height, width) that run lengths say they have.
    """

    kinds: NDArray[np.int8]
    first: Ints
    begin: Ints
    numbers: Floats
    declared: Ints

    def parts(self, k: int) -> list[Floats]:
        return [
            self.numbers[self.begin[p] : self.begin[p + 1]] for p in range(self.first[k], self.first[k + 1])
        ]

    def as_coco(self, k: int) -> Any:
        """COCO's ``segmentation`` of object ``k``."""
        if self.kinds[k] == POLYGONS:
            return [part.tolist() for part in self.parts(k)]
        if self.kinds[k] == RUN_LENGTHS:
            return to_coco(self._run_lengths(k))
        return []

    def mask(self, k: int, size: tuple[int, int]) -> RLE:
        """Of object ``k``, on a picture of ``size`` (height, width). Polygons become pixels as in COCO's own code."""
        if self.kinds[k] == RUN_LENGTHS:
            return self._run_lengths(k)
        from_polygons = need("faster_coco_eval").mask
        drawn = from_polygons.frPyObjects(self.as_coco(k), *size)
        return parse(from_polygons.merge(drawn), size)

    def _run_lengths(self, k: int) -> RLE:
        height, width = self.declared[k].tolist()
        return RLE((height, width), self.parts(k)[0].astype(np.int64))


@dataclass(frozen=True)
class Instances:
    """``image_ids`` (N,), ``sizes`` (N, 2) as (height, width), ``file_names``; of every object its number ``ids`` (A,),
    ``labels`` (A,) from 0, in rising order of ``category_ids`` (C,); ``boxes`` (A, 4) x, y, width, height; ``areas``,
    ``crowd`` (A,). The objects of picture ``i`` are ``order[bounds[i] : bounds[i + 1]]``. ``masked``: they have masks,
    all or some.
    """

    image_ids: Ints
    sizes: Ints
    file_names: Sequence[str]
    category_ids: Ints
    class_names: tuple[str, ...]
    ids: Ints
    labels: NDArray[np.int32]
    boxes: Floats
    areas: Floats
    crowd: NDArray[np.bool_]
    outlines: Outlines
    order: Ints
    bounds: Ints
    masked: bool

    def __len__(self) -> int:
        return len(self.image_ids)

    def size(self, i: int) -> tuple[int, int]:
        height, width = self.sizes[i].tolist()
        return height, width

    def digest(self) -> str:
        """Of all that is said of the objects."""
        own = hashlib.blake2b(digest_size=16)
        outlines = self.outlines
        for each in (
            self.category_ids, self.order, self.bounds, self.labels, self.boxes, self.areas, self.crowd,
            outlines.kinds, outlines.first, outlines.begin, outlines.numbers, outlines.declared,
        ):  # fmt: skip
            own.update(np.ascontiguousarray(each).data)
        return own.hexdigest()

    def rows(self, i: int) -> Ints:
        """Which objects are those of picture ``i``, in the file's order."""
        return self.order[self.bounds[i] : self.bounds[i + 1]]

    def without(self, rows: Ints) -> "Instances":
        """The same, but that the objects ``rows`` belong to no picture."""
        kept = ~np.isin(self.order, rows)
        bounds = np.concatenate([[0], np.cumsum(kept)])[self.bounds].astype(np.int64)
        return replace(self, order=self.order[kept], bounds=bounds)

    @property
    def unmasked(self) -> int:
        """How many objects have no mask."""
        return int(np.count_nonzero(self.outlines.kinds[self.order] == NO_MASK))

    def objects(self, i: int, *, masked: bool | None = None) -> Objects:
        """Of picture ``i``, about which nothing is wrong. With masks those alone that have one."""
        rows, size = self.rows(i), self.size(i)
        masked = self.masked if masked is None else masked
        if masked:
            rows = rows[self.outlines.kinds[rows] != NO_MASK]
        boxes = self.boxes[rows]
        boxes[:, 2:] += boxes[:, :2]
        return Objects(
            size,
            boxes,
            self.labels[rows].astype(np.int64),
            self.crowd[rows],
            self.areas[rows],
            tuple(self.outlines.mask(k, size) for k in rows.tolist()) if masked else None,
        )

    def as_coco(self, i: int) -> dict[str, Any]:
        """COCO's file of picture ``i`` alone, without the categories."""
        height, width = self.size(i)
        number = int(self.image_ids[i])
        image = {"id": number, "file_name": self.file_names[i], "height": height, "width": width}
        annotations = [
            {
                "id": int(self.ids[k]),
                "image_id": number,
                "category_id": int(self.category_ids[self.labels[k]]),
                "bbox": self.boxes[k].tolist(),
                "area": float(self.areas[k]),
                "iscrowd": int(self.crowd[k]),
                "segmentation": self.outlines.as_coco(k),
            }
            for k in self.rows(i).tolist()
        ]
        return {"images": [image], "annotations": annotations}

"""``map-shards`` and ``object-shards``: pictures with maps or objects in tar files, as ``crosshead data pack`` writes
them.

Pictures and what belongs to them are shards of their own, below ``images`` and ``maps`` or ``objects``, with the same
keys in the same order. What a picture's objects are is read with the picture: nothing of it is held in memory.
"""

import io
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosshead.data.base import IGNORED, IMAGENET_MEAN, IMAGENET_STD, ImageSet, Splits, dataset_info
from crosshead.data.coco.instances import Instances, Objects
from crosshead.data.coco.reader import Categories, read_instances
from crosshead.data.datasets.archives import ArchivedImages
from crosshead.data.datasets.dense import StoredMaps, StoredObjects
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.image_folder import data_root
from crosshead.data.datasets.shards import read_shards, shard_files
from crosshead.data.decode.images import BrokenImage, decode_map, display_name
from crosshead.data.random import Indices
from crosshead.files import read_json
from crosshead.recipe.schema import DataConfig

MAPS = "ROOT/images/train-000000.tar, ROOT/maps/train-000000.tar, ... (and val, test), ROOT/maps.json"
OBJECTS = (
    "ROOT/images/train-000000.tar, ROOT/objects/train-000000.tar, ... (and val, test), ROOT/objects.json"
)


class _Packed(ImageSet):
    """The pictures of ``images`` and, in the same order, ``others``, which belong to them."""

    stored = True

    def __init__(self, images: ArchivedImages, others: ArchivedImages) -> None:
        self.images, self.others, self.targets = images, others, others.names

    def __len__(self) -> int:
        return len(self.images)

    def load(self, i: int) -> Image.Image:
        return self.images.load(i)

    def source(self, i: int) -> bytes:
        return self.images.source(i)

    def encoded(self, i: int) -> tuple[bytes, ...]:
        return self.images.source(i), self.others.source(i)

    def name(self, i: int) -> str:
        return self.images.name(i)

    def subset(self, indices: Indices) -> Self:
        part = copy(self)
        _Packed.__init__(part, self.images.subset(indices), self.others.subset(indices))
        return part


class PackedMaps(_Packed, StoredMaps):
    def __init__(
        self, images: ArchivedImages, maps: ArchivedImages, classes: int, *, zero_is_ignored: bool
    ) -> None:
        super().__init__(images, maps)
        self.classes, self.zero_is_ignored = classes, zero_is_ignored

    def numbers(self, i: int) -> NDArray[np.uint8]:
        limit = self.others.decoding.max_megapixels
        return decode_map(self.others.source(i), name=self.map_name(i), max_megapixels=limit)

    def map_name(self, i: int) -> str:
        return self.others.name(i)


class PackedObjects(_Packed, StoredObjects):
    """``marks`` are COCO files of one picture each."""

    def __init__(
        self,
        images: ArchivedImages,
        marks: ArchivedImages,
        categories: Categories,
        *,
        masked: bool,
        partly: bool = False,
        max_objects: int | None = None,
    ) -> None:
        super().__init__(images, marks)
        self.categories, self.masked, self.partly, self.max_objects = categories, masked, partly, max_objects

    def objects(self, i: int) -> Objects:
        return self._instances(i).objects(0, masked=self.masked)

    def encoded(self, i: int) -> tuple[bytes, ...]:
        self._instances(i)
        return super().encoded(i)

    def picture_id(self, i: int) -> int:
        return int(self._instances(i).image_ids[0])

    def _instances(self, i: int) -> Instances:
        body = self.others.source(i)
        try:
            read = read_instances(
                io.StringIO(body.decode()),
                max_megapixels=self.images.decoding.max_megapixels,
                categories=self.categories,
                masked=self.masked,
                max_objects=self.max_objects,
            )
        except ValueError as error:
            raise BrokenImage(self.name(i), f"its objects {self.others.name(i)}: {error}") from None
        wrong = [*read.faults.values(), *read.stray]
        wrong += [f"{len(read.instances)} pictures in place of one"] * (len(read.instances) > 1)
        if wrong:
            raise BrokenImage(self.name(i), f"its objects {self.others.name(i)}: {wrong[0]}")
        return read.instances


def open_map_shards(data: DataConfig, *, hold: HoldOut) -> Splits:
    """Without ``val`` shards a share of ``train`` is held out, by seed."""
    root = data_root(data, MAPS)
    names, zero_is_ignored = _described_maps(root / "maps.json")

    def packed(images: ArchivedImages, maps: ArchivedImages) -> PackedMaps:
        return PackedMaps(images, maps, len(names), zero_is_ignored=zero_is_ignored)

    return _open(data, hold, packed, root, MAPS, ("maps", "maps"), names)


def open_object_shards(data: DataConfig, *, hold: HoldOut) -> Splits:
    """Without ``val`` shards a share of ``train`` is held out, by seed."""
    root = data_root(data, OBJECTS)
    categories, masked, partly = _described_objects(root / "objects.json")

    def packed(images: ArchivedImages, marks: ArchivedImages) -> PackedObjects:
        return PackedObjects(
            images, marks, categories, masked=masked, partly=partly, max_objects=data.max_objects
        )

    kind, ids = ("objects", "sets of objects"), categories.ids.tolist()
    return _open(data, hold, packed, root, OBJECTS, kind, categories.names, ids)


def _open(
    data: DataConfig,
    hold: HoldOut,
    packed: Callable[[ArchivedImages, ArchivedImages], Any],
    root: Path,
    layout: str,
    kind: tuple[str, str],
    names: Sequence[str],
    ids: Sequence[int] | None = None,
) -> Splits:
    """``kind``: the folder of what belongs to the pictures, and what it is called."""
    folder, what = kind
    sets = {}
    for part in ("train", "val", "test"):
        pictures, others = (shard_files(root / place, part) for place in ("images", folder))
        if bool(pictures) != bool(others) or (part == "train" and not pictures):
            raise ValueError(
                f"{display_name(root)}: expected shards of {part} in images and in {folder}: {layout}"
            )
        if pictures:
            both = read_shards(pictures, data), read_shards(others, data)
            _check_pairs(root, part, *both, what)
            sets[part] = packed(*both)
    train, validation = sets["train"], sets.get("val")
    if validation is None:
        train, validation = hold.split(train, data)
    info = dataset_info(data, names, IMAGENET_MEAN, IMAGENET_STD, ids)
    return Splits(train, validation, sets.get("test"), info, held_out="val" not in sets)


def describe_dense(splits: Splits) -> tuple[str, str, Any]:
    """The name of the data set that reads shards of these pictures, and what stands in which file beside them."""
    train, names = splits.train, list(splits.info.class_names)
    if isinstance(train, StoredMaps):
        return "map-shards", "maps.json", {"classes": names, "zero_is_ignored": train.zero_is_ignored}
    assert isinstance(train, StoredObjects)
    ids = splits.info.class_ids or tuple(range(len(names)))
    categories = [{"id": number, "name": name} for number, name in zip(ids, names, strict=True)]
    described = {"categories": categories, "masked": train.masked, "partly": train.partly}
    return "object-shards", "objects.json", described


def _described_maps(file: Path) -> tuple[list[str], bool]:
    try:
        content = read_json(file)
        names, zero_is_ignored = content["classes"], content["zero_is_ignored"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{display_name(file)}: can't be read ({error}); pack the data anew") from None
    whole = isinstance(names, list) and 2 <= len(names) <= IGNORED and all(isinstance(n, str) for n in names)
    if not whole or not isinstance(zero_is_ignored, bool):
        raise ValueError(
            f"{display_name(file)}: expected the names of 2 to {IGNORED} classes; pack the data anew"
        )
    return names, zero_is_ignored


def _described_objects(file: Path) -> tuple[Categories, bool, bool]:
    try:
        content = read_json(file)
        numbers = [entry["id"] for entry in content["categories"]]
        names = [entry["name"] for entry in content["categories"]]
        masked, partly = content["masked"], content.get("partly", False)  # packed by 0.5: all or none
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{display_name(file)}: can't be read ({error}); pack the data anew") from None
    whole = all(type(number) is int and abs(number) < 2**63 for number in numbers) and bool(numbers)
    named = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    if not (whole and named and numbers == sorted(set(numbers)) and isinstance(masked, bool)):
        raise ValueError(
            f"{display_name(file)}: expected categories with rising ids and a name each; pack the data anew"
        )
    return Categories(np.array(numbers, np.int64), tuple(names)), masked, partly is True


def _check_pairs(root: Path, part: str, images: ArchivedImages, others: ArchivedImages, what: str) -> None:
    """ValueError where shards of pictures and of ``what`` belongs to them have other keys."""
    keys = [[name.partition(".")[0] for name in kind.names] for kind in (images, others)]
    if keys[0] != keys[1]:
        raise ValueError(
            f"{display_name(root)}: {len(images)} pictures of {part} and {len(others)} {what}, which don't belong "
            "together; copy all shards again, or pack the data anew"
        )

"""``object-shards``: pictures with objects in tar files, as ``crosshead data pack`` writes them.

Pictures and their objects are shards of their own, below ``images`` and ``objects``, with the same keys in the same
order. What a picture's objects are is read with the picture: nothing of it is held in memory.
"""

import io
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crosshead.data.base import IMAGENET_MEAN, IMAGENET_STD, Splits, dataset_info
from crosshead.data.coco.instances import Instances
from crosshead.data.coco.objects import Objects
from crosshead.data.coco.reader import Categories, read_instances
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.image_folder import data_root
from crosshead.data.datasets.map_shards import check_pairs
from crosshead.data.datasets.objects import ObjectDataset
from crosshead.data.datasets.shards import read_shards, shard_files
from crosshead.data.decode.archives import ArchivedImages
from crosshead.data.decode.images import BrokenImage, display_name
from crosshead.data.random import Indices
from crosshead.files import read_json
from crosshead.recipe.schema import DataConfig

LAYOUT = "ROOT/images/train-000000.tar, ROOT/objects/train-000000.tar, ... (and val, test), ROOT/objects.json"
DESCRIPTION = "objects.json"


class PackedObjects(ObjectDataset):
    """The pictures of ``images`` and, in the same order, their ``marks``: COCO files of one picture each."""

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
        self.images, self.marks, self.categories, self.masked = images, marks, categories, masked
        self.partly, self.max_objects = partly, max_objects
        self.targets = marks.names

    def __len__(self) -> int:
        return len(self.images)

    def load(self, i: int) -> Image.Image:
        return self.images.load(i)

    def source(self, i: int) -> bytes:
        return self.images.encoded(i)

    def objects(self, i: int) -> Objects:
        return self._instances(i).objects(0, masked=self.masked)

    def encoded(self, i: int) -> tuple[bytes, bytes]:
        self._instances(i)
        return self.images.encoded(i), self.marks.encoded(i)

    def picture_id(self, i: int) -> int:
        return int(self._instances(i).image_ids[0])

    def name(self, i: int) -> str:
        return self.images.name(i)

    def subset(self, indices: Indices) -> "PackedObjects":
        part = copy(self)
        part.images, part.marks = self.images.subset(indices), self.marks.subset(indices)
        part.targets = part.marks.names
        return part

    def _instances(self, i: int) -> Instances:
        body = self.marks.encoded(i)
        try:
            read = read_instances(
                io.StringIO(body.decode()),
                max_megapixels=self.images.decoding.max_megapixels,
                categories=self.categories,
                masked=self.masked,
                max_objects=self.max_objects,
            )
        except ValueError as error:
            raise BrokenImage(self.name(i), f"its objects {self.marks.name(i)}: {error}") from None
        wrong = [*read.faults.values(), *read.stray]
        wrong += [f"{len(read.instances)} pictures in place of one"] * (len(read.instances) > 1)
        if wrong:
            raise BrokenImage(self.name(i), f"its objects {self.marks.name(i)}: {wrong[0]}")
        return read.instances


def open_object_shards(data: DataConfig, *, hold: HoldOut) -> Splits:
    """Without ``val`` shards a share of ``train`` is held out, by seed."""
    root = data_root(data, LAYOUT)
    categories, masked, partly = _described(root / DESCRIPTION)
    sets = {}
    for part in ("train", "val", "test"):
        pictures, marks = (shard_files(root / kind, part) for kind in ("images", "objects"))
        if bool(pictures) != bool(marks) or (part == "train" and not pictures):
            raise ValueError(
                f"{display_name(root)}: expected shards of {part} in images and in objects: {LAYOUT}"
            )
        if pictures:
            both = read_shards(pictures, data), read_shards(marks, data)
            check_pairs(root, part, *both, "sets of objects")
            sets[part] = PackedObjects(
                *both, categories, masked=masked, partly=partly, max_objects=data.max_objects
            )
    train, validation = sets["train"], sets.get("val")
    if validation is None:
        train, validation = hold.split(train, data)
    info = dataset_info(data, categories.names, IMAGENET_MEAN, IMAGENET_STD, categories.ids.tolist())
    return Splits(train, validation, sets.get("test"), info, held_out="val" not in sets)


def description(
    train: ObjectDataset, class_names: tuple[str, ...], class_ids: tuple[int, ...]
) -> dict[str, Any]:
    """What stands in ``objects.json``."""
    categories = [{"id": number, "name": name} for number, name in zip(class_ids, class_names, strict=True)]
    return {"categories": categories, "masked": train.masked, "partly": train.partly}


def _described(file: Path) -> tuple[Categories, bool, bool]:
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

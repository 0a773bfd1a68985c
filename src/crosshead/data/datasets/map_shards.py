"""``map-shards``: pictures with maps in tar files, as ``crosshead data pack`` writes them.

Pictures and maps are shards of their own, below ``images`` and ``maps``, with the same keys in the same order.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosshead.data.base import IGNORED, IMAGENET_MEAN, IMAGENET_STD, Splits, dataset_info
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.image_folder import data_root
from crosshead.data.datasets.mapped import SegmentationDataset
from crosshead.data.datasets.shards import read_shards, shard_files
from crosshead.data.decode.archives import ArchivedImages
from crosshead.data.decode.images import decode_map, display_name
from crosshead.data.random import Indices
from crosshead.files import read_json
from crosshead.recipe.schema import DataConfig

LAYOUT = "ROOT/images/train-000000.tar, ROOT/maps/train-000000.tar, ... (and val, test), ROOT/maps.json"
DESCRIPTION = "maps.json"


class PackedMaps(SegmentationDataset):
    """The pictures of ``images`` and, in the same order, ``maps``."""

    def __init__(
        self, images: ArchivedImages, maps: ArchivedImages, classes: int, *, zero_is_ignored: bool
    ) -> None:
        self.images, self.maps, self.classes, self.zero_is_ignored = images, maps, classes, zero_is_ignored
        self.targets = maps.names

    def __len__(self) -> int:
        return len(self.images)

    def load(self, i: int) -> Image.Image:
        return self.images.load(i)

    def source(self, i: int) -> bytes:
        return self.images.encoded(i)

    def numbers(self, i: int) -> NDArray[np.uint8]:
        limit = self.maps.decoding.max_megapixels
        return decode_map(self.maps.encoded(i), name=self.map_name(i), max_megapixels=limit)

    def encoded(self, i: int) -> tuple[bytes, bytes]:
        return self.images.encoded(i), self.maps.encoded(i)

    def name(self, i: int) -> str:
        return self.images.name(i)

    def map_name(self, i: int) -> str:
        return self.maps.name(i)

    def subset(self, indices: Indices) -> "PackedMaps":
        images, maps = self.images.subset(indices), self.maps.subset(indices)
        return PackedMaps(images, maps, self.classes, zero_is_ignored=self.zero_is_ignored)


def open_map_shards(data: DataConfig, *, hold: HoldOut) -> Splits:
    """Without ``val`` shards a share of ``train`` is held out, by seed."""
    root = data_root(data, LAYOUT)
    names, zero_is_ignored = _described(root / DESCRIPTION)
    sets = {}
    for part in ("train", "val", "test"):
        pictures, maps = (shard_files(root / kind, part) for kind in ("images", "maps"))
        if bool(pictures) != bool(maps) or (part == "train" and not pictures):
            raise ValueError(
                f"{display_name(root)}: expected shards of {part} in images and in maps: {LAYOUT}"
            )
        if pictures:
            both = read_shards(pictures, data), read_shards(maps, data)
            check_pairs(root, part, *both, "maps")
            sets[part] = PackedMaps(*both, len(names), zero_is_ignored=zero_is_ignored)
    train, validation = sets["train"], sets.get("val")
    if validation is None:
        train, validation = hold.split(train, data)
    info = dataset_info(data, names, IMAGENET_MEAN, IMAGENET_STD)
    return Splits(train, validation, sets.get("test"), info, held_out="val" not in sets)


def _described(file: Path) -> tuple[list[str], bool]:
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


def check_pairs(root: Path, part: str, images: ArchivedImages, others: ArchivedImages, what: str) -> None:
    """ValueError where shards of pictures and of ``what`` belongs to them have other keys."""
    keys = [[name.partition(".")[0] for name in kind.names] for kind in (images, others)]
    if keys[0] != keys[1]:
        raise ValueError(
            f"{display_name(root)}: {len(images)} pictures of {part} and {len(others)} {what}, which don't belong "
            "together; copy all shards again, or pack the data anew"
        )

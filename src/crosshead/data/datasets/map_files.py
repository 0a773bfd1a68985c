"""Pictures with maps in files: each pixel's class, in a file of its own beside the picture."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crosshead.data.base import IGNORED, FileImages
from crosshead.data.datasets.dense import StoredMaps
from crosshead.data.datasets.image_folder import files_below, refused_links
from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import (
    SUFFIXES,
    decode_map,
    display_name,
    read_file,
)
from crosshead.recipe.schema import DataConfig


class MappedImages(FileImages, StoredMaps):
    """Pictures and maps in files, decoded when asked for.

    Args:
        paths, maps: a picture and its map each; "" where the map is missing.
        classes: how many there are; a map with a number beyond them is broken.
        decoding: of a picture; of a map its ``max_megapixels``.
        zero_is_ignored: the files count their classes from 1, and 0 is no class (ADE20K).
        refused: the reason for pictures that are not to be opened, by path.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        maps: Sequence[Path | str],
        classes: int,
        decoding: Decoding,
        *,
        zero_is_ignored: bool = False,
        refused: dict[str, str] | None = None,
    ) -> None:
        assert len(paths) == len(maps) and 0 < classes <= IGNORED
        super().__init__(paths, [str(path) for path in maps], decoding, refused)
        self.classes, self.zero_is_ignored = classes, zero_is_ignored

    @property
    def known_faults(self) -> list[tuple[str, str]]:
        return [(self.name(i), self.refused[p]) for i, p in enumerate(self.paths) if p in self.refused]

    def numbers(self, i: int) -> NDArray[np.uint8]:
        return decode_map(self.targets[i], max_megapixels=self.decoding.max_megapixels)

    def encoded(self, i: int) -> tuple[bytes, ...]:
        return (*super().encoded(i), read_file(self.targets[i]))

    def map_name(self, i: int) -> str:
        return display_name(self.targets[i])


@dataclass(frozen=True)
class Pairs:
    """Pictures and maps that belong together, and what should be known of the others."""

    images: MappedImages
    notes: tuple[str, ...]
    passed_over: tuple[tuple[str, str], ...]


def pair_folders(
    pictures: Path, maps: Path, classes: int, data: DataConfig, *, inside: Path, zero_is_ignored: bool = False
) -> Pairs:
    """Every picture below ``pictures`` and the map of the same name below ``maps``, whatever their suffixes.

    A picture without a map counts as broken; a map without a picture is passed over. Links as in ``list_classes``.

    Raises:
        ValueError: no pictures, two of one name, or more without a map than ``data.max_broken``.
    """
    limit = None if data.follow_links else inside
    found, links, _ = files_below(pictures, limit)
    drawn, map_links, _ = files_below(maps, limit)
    if not found:
        raise ValueError(f"{display_name(pictures)}: no pictures ({', '.join(SUFFIXES)})")
    by_name = _named(drawn, maps)
    names = _named(found, pictures)
    own = [by_name.get(name, "") for name in names]
    pairs = list(zip(names.values(), own, strict=True))
    refused = refused_links(links, inside, data)
    for path, reason in refused_links(map_links, inside, data).items():
        refused |= {picture: f"its map is {reason}" for picture, its in pairs if its == path}
    lost = {
        path: f"no map; expected {display_name(maps / name)}.png"
        for name, (path, its) in zip(names, pairs, strict=True)
        if not its
    }
    check_missing(lost, len(found), data)
    unused = [path for name, path in by_name.items() if name not in names]
    images = MappedImages(
        list(names.values()),
        own,
        classes,
        Decoding.of(data),
        zero_is_ignored=zero_is_ignored,
        refused=refused | lost,
    )
    notes = [f"{len(lost)} of {len(found)} pictures have no map and count as broken"] if lost else []
    return Pairs(
        images, tuple(notes), tuple((display_name(path), "a map without a picture") for path in unused)
    )


def check_missing(lost: dict[str, str], count: int, data: DataConfig) -> None:
    """ValueError where the pictures without a map are all, or more than are allowed."""
    if lost and (len(lost) == count or len(lost) > data.max_broken):
        first, reason = next(iter(lost.items()))
        raise ValueError(
            f"{len(lost)} of {count} pictures have no map (data.max_broken is {data.max_broken}), "
            f"{display_name(first)} for one: {reason}"
        )


def _named(files: Sequence[str], folder: Path) -> dict[str, str]:
    """Files by their path below ``folder``, without the suffix."""
    named: dict[str, str] = {}
    for file in files:
        name = os.path.splitext(os.path.relpath(file, folder))[0]
        if name in named:
            raise ValueError(
                f"{display_name(file)} and {display_name(named[name])} have one name, and which belongs to which map "
                "is not to be told: rename one"
            )
        named[name] = file
    return named

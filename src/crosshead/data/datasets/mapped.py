"""Pictures with maps: each pixel's class, in a file of its own beside the picture."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosshead.data.base import IGNORED, ImageSet
from crosshead.data.datasets.image_folder import files_below, refused_links
from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import (
    SUFFIXES,
    BrokenImage,
    decode_image,
    decode_map,
    display_name,
    exif_hint,
    read_file,
)
from crosshead.data.random import Indices
from crosshead.recipe.schema import DataConfig

_LOOKED_AT = 64  # maps of a set, before training


class BeyondClasses(ValueError):
    """A map has a number for which there is no class: the list is wrong, not the picture, and no policy for broken
    pictures passes over it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type["BeyondClasses"], tuple[str, str]]:
        return BeyondClasses, (self.name, self.reason)


class MapSet(ImageSet, Protocol):
    """Pictures whose pixels have classes."""

    def sample(self, i: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Picture ``i``, and its classes (height, width), ``IGNORED`` where there is none. Raises ``BrokenImage``,
        and ``BeyondClasses``."""


class SegmentationDataset:
    """What sets of pictures with maps share, wherever both are kept: a map is read and checked with its picture."""

    counted = "pixels"
    classes: int
    zero_is_ignored: bool

    def load(self, i: int) -> Image.Image:
        raise NotImplementedError

    def name(self, i: int) -> str:
        raise NotImplementedError

    def map_name(self, i: int) -> str:
        raise NotImplementedError

    def encoded(self, i: int) -> tuple[bytes, bytes]:
        """The bytes of picture ``i`` and of its map, as they are kept. Raises ``BrokenImage``."""
        raise NotImplementedError

    def source(self, i: int) -> str | bytes:
        """What picture ``i`` is decoded from. Raises ``BrokenImage``."""
        raise NotImplementedError

    def numbers(self, i: int) -> NDArray[np.uint8]:
        """What the map of picture ``i`` says, (height, width), unchecked. Raises ``BrokenImage``."""
        raise NotImplementedError

    def look_into_maps(self) -> None:
        """``BeyondClasses`` where some of the maps, spread over the set, have a number for which there is no class."""
        for i in range(0, len(self), max(1, len(self) // _LOOKED_AT)):
            try:
                self._classes(i, self.numbers(i))
            except BrokenImage:  # for the policies to judge
                continue

    def __len__(self) -> int:
        raise NotImplementedError

    def sample(self, i: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        picture = self.load(i)
        try:
            numbers = self.numbers(i)
        except BrokenImage as broken:
            raise BrokenImage(self.name(i), f"its map {broken.name}: {broken.reason}") from None
        height, width = numbers.shape
        if (width, height) != picture.size:
            reason = f"{width} x {height} pixels, but the picture has {picture.width} x {picture.height}"
            reason += exif_hint(picture, (width, height))
            raise BrokenImage(self.name(i), f"its map {self.map_name(i)}: {reason}")
        return picture, self._classes(i, numbers)

    def _classes(self, i: int, numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # In 8 bits 0 - 1 is 255.
        classes = numbers - np.uint8(1) if self.zero_is_ignored else numbers
        beyond = np.unique(numbers[(classes >= self.classes) & (classes != IGNORED)])
        if len(beyond):
            first, last = (1, self.classes) if self.zero_is_ignored else (0, self.classes - 1)
            ignored = 0 if self.zero_is_ignored else IGNORED
            reason = (
                f"class numbers {', '.join(map(str, beyond[:5]))}{' and more' * (len(beyond) > 5)}, but there are "
                f"{first} to {last}, and {ignored} for no class. "
            ) + (
                f"Is {last} the last number of your maps, or is a name missing in the list? The first name is that of "
                f"{first}: where {first} is background, it stands there as a class of its own"
            )
            raise BeyondClasses(self.map_name(i), reason)
        return classes


class MappedImages(SegmentationDataset):
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
        self.paths, self.targets = [str(path) for path in paths], [str(path) for path in maps]
        self.classes, self.decoding = classes, decoding
        self.zero_is_ignored, self.refused = zero_is_ignored, refused or {}

    @property
    def known_faults(self) -> list[tuple[str, str]]:
        """(name, reason) of every picture of which it is known without reading it that it is broken."""
        return [(self.name(i), self.refused[p]) for i, p in enumerate(self.paths) if p in self.refused]

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, i: int) -> Image.Image:
        self._check(i)
        return decode_image(self.paths[i], decoding=self.decoding)

    def source(self, i: int) -> str:
        self._check(i)
        return self.paths[i]

    def numbers(self, i: int) -> NDArray[np.uint8]:
        return decode_map(self.targets[i], max_megapixels=self.decoding.max_megapixels)

    def encoded(self, i: int) -> tuple[bytes, bytes]:
        self._check(i)
        return read_file(self.paths[i]), read_file(self.targets[i])

    def _check(self, i: int) -> None:
        if (reason := self.refused.get(self.paths[i])) is not None:
            raise BrokenImage(self.name(i), reason)

    def name(self, i: int) -> str:
        return display_name(self.paths[i])

    def map_name(self, i: int) -> str:
        return display_name(self.targets[i])

    def subset(self, indices: Indices) -> "MappedImages":
        return MappedImages(
            [self.paths[i] for i in indices],
            [self.targets[i] for i in indices],
            self.classes,
            self.decoding,
            zero_is_ignored=self.zero_is_ignored,
            refused=self.refused,
        )


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

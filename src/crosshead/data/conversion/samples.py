"""What is written of a source: its pictures, whole or as tiles, each with its split, objects or map."""

import hashlib
import io
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from crosshead.data.base import IGNORED
from crosshead.data.conversion.annotated import SPLITS, AnnotatedPicture, Annotations
from crosshead.data.conversion.masks import class_numbers
from crosshead.data.conversion.shapes import number_map
from crosshead.data.conversion.tiling import Place, Tiling, tile_of
from crosshead.data.datasets.held_out import PURPOSE, stratified_split
from crosshead.data.decode.images import FORMATS, BrokenImage, display_name

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sample:
    """``picture`` as it is written; ``place`` is where a tile lies in its source, None for a whole picture; ``open``
    gives the source's pixels, which the tiles of a picture share."""

    picture: AnnotatedPicture
    place: Place | None
    open: Callable[[], Image.Image]
    numbers: Callable[[], NDArray[np.uint8]]

    def save(self, file: Path, *, link: bool) -> None:
        """A whole picture's own bytes, or a tile's pixels as PNG."""
        file.parent.mkdir(parents=True, exist_ok=True)
        if self.place is not None:
            self.open().crop(_corners(self.place)).save(file)
        elif self.picture.content is not None:
            file.write_bytes(self.picture.content)
        elif link:
            os.link(self.picture.file, file)
        else:
            shutil.copyfile(self.picture.file, file)

    def map(self, names: dict[str, int]) -> NDArray[np.uint8]:
        """Its classes (height, width): the source's own, or the objects', drawn over 0 in their order."""
        if self.picture.map_file is None:
            return number_map(self.picture.objects, names, self.picture.size, IGNORED)
        whole = self.numbers()
        if self.place is None:
            return whole
        top, left, height, width = self.place
        return whole[top : top + height, left : left + width]


def samples_of(
    annotations: Annotations,
    tiling: Tiling | None,
    tiled: Sequence[str | None],
    progress: Progress | None = None,
) -> Iterator[Sample]:
    """Whole pictures; of the splits ``tiled`` the tiles that ``tiling`` makes and keeps. What can't be decoded is left
    out, and empty tiles are counted there."""
    left_out = annotations.left_out
    for done, picture in enumerate(annotations.pictures, 1):
        source = _Source(picture, annotations)
        cut = tiling is not None and picture.split in tiled and max(picture.size) > tiling.side
        try:
            for place in tiling.places(picture.size) if cut and tiling is not None else (None,):
                if place is None or tiling is None:
                    yield Sample(picture, None, source.pixels, source.numbers)
                    continue
                tile = tile_of(picture, place, tiling)
                sample = Sample(tile, place, source.pixels, source.numbers)
                if tiling.keeps_empty(tile.name) or not _is_empty(sample, annotations):
                    yield sample
                else:
                    left_out.add("tiles with nothing in them (--empty)", tile.name)
        except BrokenImage as broken:
            left_out.add("pictures that can't be read", f"{broken.name}: {broken.reason}")
        if progress is not None:
            progress(done, len(annotations.pictures))


def _is_empty(sample: Sample, annotations: Annotations) -> bool:
    """Of maps: one value alone, that of the first class."""
    return not sample.map({}).any() if annotations.maps else not sample.picture.objects


class _Source:
    """A picture's pixels and map, decoded once for all its tiles."""

    def __init__(self, picture: AnnotatedPicture, annotations: Annotations) -> None:
        self.picture, self.annotations = picture, annotations
        self._pixels: Image.Image | None = None
        self._numbers: NDArray[np.uint8] | None = None

    def pixels(self) -> Image.Image:
        if self._pixels is None:
            self._pixels = _decoded(self.picture)
        return self._pixels

    def numbers(self) -> NDArray[np.uint8]:
        if self._numbers is None:
            binary = self.annotations.form == "binary masks"
            self._numbers = class_numbers(self.picture, binary=binary, left_out=self.annotations.left_out)
        return self._numbers


def _decoded(picture: AnnotatedPicture) -> Image.Image:
    """With the depth that it has, the way up that people see it."""
    name = display_name(picture.file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = picture.file if picture.content is None else io.BytesIO(picture.content)
            with Image.open(source, formats=FORMATS) as image:
                wide = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
                if wide and not image.mode.startswith("I"):
                    raise ValueError("colours of 16 bits, of which Pillow keeps 8: cut it with your own tool")
                upright = ImageOps.exif_transpose(image)
                if upright.mode == "CMYK":
                    return upright.convert("RGB")
                return upright.copy()
    except Exception as error:  # decoders fail with every kind of exception on damaged bytes
        raise BrokenImage(name, " ".join(str(error).split()) or type(error).__name__) from None


def _corners(place: Place) -> tuple[int, int, int, int]:
    top, left, height, width = place
    return left, top, left + width, top + height


def hold_out(annotations: Annotations, share: float, seed: int) -> Annotations:
    """``share`` of the training pictures (those of no split too) become validation, chosen by name: whole pictures, so
    that no tile of one lies in two splits.

    Raises:
        ValueError: no share between 0 and 1, or fewer than two pictures.
    """
    own = [i for i, picture in enumerate(annotations.pictures) if picture.split in (None, "train")]
    names = [annotations.pictures[i].name.encode() for i in own]
    ids = np.array([int.from_bytes(_digest(name), "little", signed=True) for name in names], np.int64)
    if not 0 < share < 1 or len(own) < 2:
        raise ValueError(
            f"--validation {share:g} of {len(own)} training pictures: expected a share between 0 and 1 of two or more"
        )
    _, held = stratified_split([0] * len(own), share, purpose=PURPOSE, seed=seed, ids=ids)
    chosen = {own[i] for i in held.tolist()}
    pictures = tuple(
        replace(picture, split=SPLITS[1] if i in chosen else picture.split or SPLITS[0])
        for i, picture in enumerate(annotations.pictures)
    )
    return replace(annotations, pictures=pictures)


def _digest(name: bytes) -> bytes:
    return hashlib.blake2b(name, digest_size=8).digest()

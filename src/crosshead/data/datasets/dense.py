"""Data sets whose pictures have a map of classes or objects: what they look like to the loaders, and what they share
wherever both are kept."""

from abc import abstractmethod
from copy import copy
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosshead.data.base import IGNORED, ImageSet
from crosshead.data.coco.instances import Objects
from crosshead.data.decode.images import BrokenImage, exif_hint
from crosshead.data.random import Indices

_LOOKED_AT = 64  # maps of a set, before training


class BeyondClasses(ValueError):
    """A map has a number for which there is no class: the list is wrong, not the picture, and no policy for broken
    pictures passes over it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type["BeyondClasses"], tuple[str, str]]:
        return BeyondClasses, (self.name, self.reason)


class SegmentationDataset(ImageSet):
    """Pictures whose pixels have classes."""

    counted = "pixels"

    @abstractmethod
    def sample(self, i: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Picture ``i``, and its classes (height, width), ``IGNORED`` where there is none. Raises ``BrokenImage``,
        and ``BeyondClasses``."""


class Told(NamedTuple):
    """Of objects that are no crowds: labels, areas in pixels, and their pictures' places in what was looked at."""

    labels: NDArray[np.int32]
    areas: NDArray[np.float64]
    places: Indices


class ObjectDataset(ImageSet):
    """Pictures with objects. ``masked`` says whether these have masks beside their boxes, ``partly`` that only some
    have, ``mask_fault`` why masks can't be learned from."""

    counted = "objects"
    masked: bool
    partly = False
    mask_fault: str | None = None

    @abstractmethod
    def sample(self, i: int) -> tuple[Image.Image, Objects]:
        """Picture ``i`` and its objects, in the picture's own pixels. Raises ``BrokenImage``."""

    @abstractmethod
    def picture_id(self, i: int) -> int:
        """The number by which COCO's results name picture ``i``; its place, from 1, where it has none."""

    def boxes_alone(self) -> Self:
        """The same pictures with all their objects, without masks."""
        alone = copy(self)
        alone.masked = alone.partly = False
        alone.mask_fault = None
        return alone

    def told_objects(self) -> Told | None:
        """Of all pictures without a fault, where that is known without reading them."""
        return None


class StoredMaps(SegmentationDataset):
    """A picture and its map are decoded, and the map is checked."""

    stored = True
    classes: int
    zero_is_ignored: bool

    @abstractmethod
    def map_name(self, i: int) -> str: ...

    @abstractmethod
    def numbers(self, i: int) -> NDArray[np.uint8]:
        """What the map of picture ``i`` says, (height, width), unchecked. Raises ``BrokenImage``."""

    def precheck(self) -> None:
        """``BeyondClasses`` where some of the maps, spread over the set, have a number for which there is no class."""
        for i in range(0, len(self), max(1, len(self) // _LOOKED_AT)):
            try:
                self._classes(i, self.numbers(i))
            except BrokenImage:  # for the policies to judge
                continue

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


class StoredObjects(ObjectDataset):
    """A picture is decoded, and whether its objects are for pictures of its size is checked."""

    stored = True

    @abstractmethod
    def objects(self, i: int) -> Objects:
        """Those of picture ``i``. Raises ``BrokenImage``."""

    def sample(self, i: int) -> tuple[Image.Image, Objects]:
        objects, picture = self.objects(i), self.load(i)
        height, width = objects.size
        if (width, height) != picture.size:
            reason = (
                f"{picture.width} x {picture.height} pixels, but its annotations are for {width} x {height}"
            )
            raise BrokenImage(self.name(i), reason + exif_hint(picture, (width, height)))
        return picture, objects

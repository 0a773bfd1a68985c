"""Pictures with objects: what a data set for detection and instance segmentation looks like to the loaders."""

from copy import copy
from typing import Protocol, Self

from PIL import Image

from crosshead.data.base import ImageSet
from crosshead.data.coco.objects import Objects
from crosshead.data.decode.images import BrokenImage, exif_hint


class ObjectSet(ImageSet, Protocol):
    """``counted`` is "objects"; ``masked`` says whether they have masks beside their boxes.

    A set may say with ``partly`` that only some have, and then has ``boxes_alone``; with ``mask_fault`` why masks can't
    be learned from."""

    counted: str
    masked: bool

    def sample(self, i: int) -> tuple[Image.Image, Objects]:
        """Picture ``i`` and its objects, in the picture's own pixels. Raises ``BrokenImage``."""

    def picture_id(self, i: int) -> int:
        """The number by which COCO's results name picture ``i``; its place, from 1, where it has none."""


class ObjectDataset:
    """What sets of pictures with objects share, wherever both are kept: objects are checked with their picture."""

    counted = "objects"
    masked: bool
    partly = False
    mask_fault: str | None = None

    def boxes_alone(self) -> Self:
        """The same pictures with all their objects, without masks."""
        alone = copy(self)
        alone.masked = alone.partly = False
        alone.mask_fault = None
        return alone

    def load(self, i: int) -> Image.Image:
        raise NotImplementedError

    def name(self, i: int) -> str:
        raise NotImplementedError

    def source(self, i: int) -> str | bytes:
        """What picture ``i`` is decoded from. Raises ``BrokenImage``."""
        raise NotImplementedError

    def objects(self, i: int) -> Objects:
        """Those of picture ``i``. Raises ``BrokenImage``."""
        raise NotImplementedError

    def encoded(self, i: int) -> tuple[bytes, bytes]:
        """The bytes of picture ``i`` as they are kept, and its objects as a COCO file of their own, without the
        categories. Raises ``BrokenImage``."""
        raise NotImplementedError

    def sample(self, i: int) -> tuple[Image.Image, Objects]:
        objects, picture = self.objects(i), self.load(i)
        height, width = objects.size
        if (width, height) != picture.size:
            reason = (
                f"{picture.width} x {picture.height} pixels, but its annotations are for {width} x {height}"
            )
            raise BrokenImage(self.name(i), reason + exif_hint(picture, (width, height)))
        return picture, objects

"""Pictures with objects: what a data set for detection and instance segmentation looks like to the loaders."""

from typing import Protocol

from PIL import Image

from crosshead.data.annotations.objects import Objects
from crosshead.data.sets.common import ImageSet


class ObjectSet(ImageSet, Protocol):
    """``counted`` is "objects"; ``masked`` says whether they have masks beside their boxes."""

    counted: str
    masked: bool

    def sample(self, i: int) -> tuple[Image.Image, Objects]:
        """Picture ``i`` and its objects, in the picture's own pixels. Raises ``BrokenImage``."""

    def picture_id(self, i: int) -> int:
        """The number by which COCO's results name picture ``i``; its place, from 1, where it has none."""

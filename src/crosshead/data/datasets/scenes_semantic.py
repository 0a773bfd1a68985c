"""``scenes-semantic``: the embedded scenes with a map of classes each."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosshead.data.base import IGNORED, Splits, dataset_info
from crosshead.data.coco.objects import Objects
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.scenes import CLASSES, MEAN, STD, Scenes
from crosshead.data.random import Indices
from crosshead.data.transforms.pipeline import image_size
from crosshead.recipe.schema import DataConfig

NAMES = ("background", *CLASSES)


class SceneMaps:
    """Scenes whose pixels are background, a digit's, or no class's where a digit is mostly hidden."""

    counted = "pixels"

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes

    @property
    def targets(self) -> list[str]:
        return [self.name(i) for i in range(len(self))]

    def __len__(self) -> int:
        return len(self.scenes)

    def load(self, i: int) -> Image.Image:
        return self.scenes.sample(i)[0]

    def sample(self, i: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        picture, objects = self.scenes.sample(i)
        return picture, classes_of(objects)

    def name(self, i: int) -> str:
        return self.scenes.name(i)

    def subset(self, indices: Indices) -> "SceneMaps":
        return SceneMaps(self.scenes.subset(indices))


def open_scenes_semantic(data: DataConfig, *, hold: HoldOut) -> Splits:
    """Scenes of ``data.image_size``; those of validation and test are the same for every seed."""
    train, validation, test = (
        SceneMaps(Scenes(split, image_size(data), hold.seed)) for split in ("train", "validation", "test")
    )
    return Splits(train, validation, test, dataset_info(data, NAMES, MEAN, STD))


def classes_of(objects: Objects) -> NDArray[np.uint8]:
    """(height, width): 0 where there is no object, an object's label + 1, ``IGNORED`` where it need not be found."""
    classes = np.zeros(objects.size, np.uint8)
    for mask, label, crowd in zip(objects.whole_masks(), objects.labels, objects.crowd, strict=True):
        classes[mask] = IGNORED if crowd else label + 1
    return classes

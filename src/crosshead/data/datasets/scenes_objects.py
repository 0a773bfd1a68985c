"""``scenes``: the embedded scenes with the boxes and masks of their digits."""

from PIL import Image

from crosshead.data.base import Splits, dataset_info
from crosshead.data.coco.objects import Objects
from crosshead.data.datasets.held_out import HoldOut
from crosshead.data.datasets.scenes import CLASSES, MEAN, STD, Scenes
from crosshead.data.random import Indices
from crosshead.data.transforms.pipeline import image_size
from crosshead.recipe.schema import DataConfig


class SceneObjects:
    """Scenes whose objects are the digits; mostly hidden ones are crowds, which need not be found."""

    counted = "objects"
    masked = True
    made_to_size = True  # by data.image_size

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes

    @property
    def targets(self) -> list[str]:
        return [self.name(i) for i in range(len(self))]

    def __len__(self) -> int:
        return len(self.scenes)

    def load(self, i: int) -> Image.Image:
        return self.sample(i)[0]

    def sample(self, i: int) -> tuple[Image.Image, Objects]:
        return self.scenes.sample(i)

    def picture_id(self, i: int) -> int:
        return int(self.scenes.ids[i]) + 1

    def name(self, i: int) -> str:
        return self.scenes.name(i)

    def subset(self, indices: Indices) -> "SceneObjects":
        return SceneObjects(self.scenes.subset(indices))


def open_scenes(data: DataConfig, *, hold: HoldOut) -> Splits:
    """Scenes of ``data.image_size``; those of validation and test are the same for every seed."""
    train, validation, test = (
        SceneObjects(Scenes(split, image_size(data), hold.seed)) for split in ("train", "validation", "test")
    )
    return Splits(train, validation, test, dataset_info(data, CLASSES, MEAN, STD))

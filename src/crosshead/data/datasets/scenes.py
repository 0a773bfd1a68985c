"""``scenes`` and ``scenes-semantic``: handwritten digits on photographs, with boxes and masks, or with maps.

Made from what comes with scikit-learn: its digits (Alpaydin, Kaynak, 1998) and its two photographs. Digits and
photographs are split before any scene is made: no digit, and no part of a photograph, is in two splits.
"""

from collections.abc import Iterator
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosshead.data.base import IGNORED, ImageSet, Splits, dataset_info
from crosshead.data.coco.instances import Objects
from crosshead.data.coco.rle import encode
from crosshead.data.datasets.dense import ObjectDataset, SegmentationDataset
from crosshead.data.datasets.held_out import HoldOut, stratified_split
from crosshead.data.random import Indices, keys, uniforms
from crosshead.data.transforms.pipeline import image_size
from crosshead.recipe.schema import DataConfig

CLASSES = tuple("0123456789")
SPLITS = ("train", "validation", "test")
LENGTHS = {"train": 8192, "validation": 128, "test": 512}
# Where each split's strip of a photograph begins and ends, as shares of its width.
STRIPS = {"train": (0.0, 0.65), "validation": (0.65, 0.8), "test": (0.8, 1.0)}
MEAN, STD = (0.46, 0.44, 0.39), (0.35, 0.28, 0.30)
_DRAWS = 512  # numbers in 0 ... 1 that a scene may use
_SHAPE = 0.35  # of full ink: where a digit's mask ends
_CONTRAST = 0.45  # of full brightness, between a digit and what is behind it
_HIDDEN = 0.5  # a digit of which less is to be seen need not be found


class Scenes(ImageSet):
    """Pictures of ``size`` (height, width) with two to five digits, each made when asked for.

    Digits are a sixth to two fifths of the shorter side, turned by up to 20 degrees, and later ones may cover a
    part of earlier ones. Scene ``i`` is a function of (seed, split, i): training scenes follow the run's seed,
    those of validation and test are the same for every run.
    """

    generated = True

    def __init__(self, split: str, size: tuple[int, int], seed: int, ids: Indices | None = None) -> None:
        self.split, self.size = split, size
        self.seed = seed if split == "train" else 0
        self.ids = np.arange(LENGTHS[split]) if ids is None else ids
        self.targets = [self.name(i) for i in range(len(self))]

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, i: int) -> Image.Image:
        return self.scene(i)[0]

    def name(self, i: int) -> str:
        return f"scenes/{self.split}[{self.ids[i]}]"

    def subset(self, indices: Indices) -> Self:
        return type(self)(self.split, self.size, self.seed, self.ids[indices])

    def scene(self, i: int) -> tuple[Image.Image, Objects]:
        """The picture, mode RGB, and the digits on it, masks included."""
        own = keys(f"scenes {self.split}", self.seed, 0, [int(self.ids[i])])
        draws = iter(uniforms(own, _DRAWS)[0].tolist())
        canvas = _background(self.split, self.size, draws)
        digits, labels = _digits(self.split)
        masks: list[NDArray[np.bool_]] = []
        whole: list[int] = []
        found: list[int] = []
        for box in _places(self.size, draws):
            which = int(next(draws) * len(digits))
            ink = _stamp(digits[which], box, self.size, turn=(next(draws) - 0.5) * 40)
            _paint(canvas, ink, draws)
            mask = ink > _SHAPE
            masks = [earlier & ~mask for earlier in masks]
            masks.append(mask)
            whole.append(int(mask.sum()))
            found.append(int(labels[which]))
        picture = Image.fromarray((canvas * 255 + 0.5).astype(np.uint8))
        return picture, _objects(self.size, masks, whole, found)


class SceneObjects(Scenes, ObjectDataset):
    """Scenes whose objects are the digits; mostly hidden ones are crowds, which need not be found."""

    masked = True

    def sample(self, i: int) -> tuple[Image.Image, Objects]:
        return self.scene(i)

    def picture_id(self, i: int) -> int:
        return int(self.ids[i]) + 1


class SceneMaps(Scenes, SegmentationDataset):
    """Scenes whose pixels are background, a digit's, or no class's where a digit is mostly hidden."""

    def sample(self, i: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        picture, objects = self.scene(i)
        return picture, _classes_of(objects)


def open_scenes(data: DataConfig, *, hold: HoldOut) -> Splits:
    """Scenes of ``data.image_size``; those of validation and test are the same for every seed."""
    train, validation, test = (SceneObjects(split, image_size(data), hold.seed) for split in SPLITS)
    return Splits(train, validation, test, dataset_info(data, CLASSES, MEAN, STD))


def open_scenes_semantic(data: DataConfig, *, hold: HoldOut) -> Splits:
    """The same scenes with a map of classes each."""
    train, validation, test = (SceneMaps(split, image_size(data), hold.seed) for split in SPLITS)
    return Splits(train, validation, test, dataset_info(data, ("background", *CLASSES), MEAN, STD))


def _classes_of(objects: Objects) -> NDArray[np.uint8]:
    """(height, width): 0 where there is no object, an object's label + 1, ``IGNORED`` where it need not be found."""
    classes = np.zeros(objects.size, np.uint8)
    for mask, label, crowd in zip(objects.whole_masks(), objects.labels, objects.crowd, strict=True):
        classes[mask] = IGNORED if crowd else label + 1
    return classes


@cache
def _digits(split: str) -> tuple[NDArray[np.uint8], Indices]:
    """Those of a split, (n, 8, 8), and their classes; a fifth of each class is test, and 15 in a hundred validation."""
    from sklearn.datasets import load_digits  # here: half a second that other data sets need not wait for

    bunch = load_digits()
    pixels, labels = np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target.astype(np.int64)
    rest, test = stratified_split(labels.tolist(), 0.2, purpose="scenes test split", seed=0)
    kept, held = stratified_split(
        labels[rest].tolist(), 0.15 / 0.8, purpose="scenes validation split", seed=0
    )
    chosen = {"train": rest[kept], "validation": rest[held], "test": test}[split]
    return pixels[chosen], labels[chosen]


@cache
def _photographs(split: str) -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    begin, end = STRIPS[split]
    pictures = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    return [p.crop((round(begin * p.width), 0, round(end * p.width), p.height)) for p in pictures]


def _background(split: str, size: tuple[int, int], draws: Iterator[float]) -> NDArray[np.float32]:
    """A piece of a photograph, (height, width, 3) in 0 ... 1."""
    photographs = _photographs(split)
    photograph = photographs[int(next(draws) * len(photographs))]
    height, width = size
    largest = min(photograph.width / width, photograph.height / height)
    scale = largest * (0.6 + 0.4 * next(draws))
    x = next(draws) * (photograph.width - width * scale)
    y = next(draws) * (photograph.height - height * scale)
    box = (x, y, x + width * scale, y + height * scale)
    return np.asarray(
        photograph.resize((width, height), Image.Resampling.BILINEAR, box), np.float32
    ) / np.float32(255)


def _places(size: tuple[int, int], draws: Iterator[float]) -> list[tuple[int, int, int]]:
    """(x, y, side) of two to five squares that overlap little."""
    shorter = min(size)
    places: list[tuple[int, int, int]] = []
    for _ in range(2 + int(next(draws) * 4)):
        for _ in range(12):
            side = int(shorter * (1 / 6 + next(draws) * (0.4 - 1 / 6)))
            x, y = int(next(draws) * (size[1] - side)), int(next(draws) * (size[0] - side))
            if all(_shared((x, y, side), other) < 0.2 for other in places):
                places.append((x, y, side))
                break
    return places


def _shared(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """The part of the smaller square that the other covers."""
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[2], other[1] + other[2]) - max(one[1], other[1])
    return max(wide, 0) * max(high, 0) / min(one[2], other[2]) ** 2


def _stamp(
    digit: NDArray[np.uint8], place: tuple[int, int, int], size: tuple[int, int], *, turn: float
) -> NDArray[np.float32]:
    """The digit enlarged and turned, alone on the picture: how much ink lies where, (height, width) in 0 ... 1."""
    x, y, side = place
    angle = np.deg2rad(turn)
    step, middle = len(digit) / side, side / 2
    cos, sin = np.cos(angle) * step, np.sin(angle) * step
    centre = len(digit) / 2
    matrix = (cos, sin, centre - (cos + sin) * middle, -sin, cos, centre - (cos - sin) * middle)
    enlarged = Image.fromarray(digit).transform(
        (side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    ink = np.zeros(size, np.float32)
    ink[y : y + side, x : x + side] = np.clip(np.asarray(enlarged, np.float32) * (1.3 / 255), 0, 1)
    return ink


def _paint(canvas: NDArray[np.float32], ink: NDArray[np.float32], draws: Iterator[float]) -> None:
    """Lays ink on the picture, darker or lighter than what is below it."""
    inked = ink > 0
    below = float(canvas[inked].mean()) if inked.any() else 0.5
    free = max(below, 1 - below) - _CONTRAST
    bright = next(draws) * free
    bright = 1 - bright if below < 0.5 else bright
    colour = np.clip([bright + (next(draws) - 0.5) * 0.2 for _ in range(3)], 0, 1).astype(np.float32)
    canvas += ink[..., None] * (colour - canvas)


def _objects(
    size: tuple[int, int], masks: list[NDArray[np.bool_]], whole: list[int], labels: list[int]
) -> Objects:
    """Those of which anything is to be seen."""
    seen = [i for i, mask in enumerate(masks) if mask.any()]
    boxes = np.zeros((len(seen), 4))
    for row, i in enumerate(seen):
        rows, columns = np.flatnonzero(masks[i].any(1)), np.flatnonzero(masks[i].any(0))
        boxes[row] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    areas = np.array([masks[i].sum() for i in seen], np.float64)
    crowd = np.array([masks[i].sum() < _HIDDEN * whole[i] for i in seen], bool)
    return Objects(
        size,
        boxes,
        np.array([labels[i] for i in seen], np.int64),
        crowd,
        areas,
        tuple(encode(masks[i]) for i in seen),
    )

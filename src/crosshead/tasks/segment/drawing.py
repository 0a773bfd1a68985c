"""A picture's segments, in its own coordinates: as a map, and drawn onto it with their names."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from crosshead.data.coco.rle import decode, parse
from crosshead.tasks.drawing import Box, colour, write_on

_STRENGTH = 0.55  # of the colours over the picture
_NAMED = 0.002  # of the picture: smaller segments keep their colour, and go without a name


def class_map(answer: dict[str, Any]) -> NDArray[np.uint8]:
    """The class of each pixel (height, width) out of what the task answered."""
    height, width = answer["size"]
    classes = np.zeros((height, width), np.uint8)
    for segment in answer["segments"]:
        classes[decode(parse(segment["segmentation"], (height, width)))] = segment["index"]
    return classes


def as_png(classes: NDArray[np.uint8]) -> Image.Image:
    """A picture of mode P: its indices are the class numbers, its palette their colours."""
    image = Image.fromarray(classes)
    image.putpalette([value for index in range(256) for value in colour(index)])
    return image


def overlay(picture: Image.Image, classes: NDArray[np.uint8], names: dict[int, str]) -> Image.Image:
    """The picture with each segment in its class's colour, and its name in the midst of its widest part; of names that
    would lie on one another that of the largest."""
    below = picture.convert("RGB")
    drawn = Image.blend(below, as_png(classes).convert("RGB"), _STRENGTH)
    draw = ImageDraw.Draw(drawn)
    size = max(10, min(below.size) // 28)
    numbers, counts = np.unique(classes, return_counts=True)
    taken: list[Box] = []
    for index, count in sorted(
        zip(numbers.tolist(), counts.tolist(), strict=True), key=lambda each: -each[1]
    ):
        if count >= _NAMED * classes.size:
            y, x = _midst(classes == index)
            write_on(draw, (x, y), names[index], size, below.size, taken)
    return drawn


def _midst(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """(row, column) of the pixel of ``mask`` that is farthest from its edge."""
    from scipy.ndimage import distance_transform_edt  # here: training waits for no drawing

    deep = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(deep)), mask.shape)
    return int(row), int(column)

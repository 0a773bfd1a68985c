"""Drawing what a model says onto pictures: a segmenter's maps, a detector's boxes and masks, and their names."""

import colorsys
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torchvision.utils import draw_bounding_boxes

from crosshead.data.coco.rle import decode, parse

_BLENDED, _TINTED = 0.55, 0.45  # of the colours over the picture, of segments and of masks
_NAMED = 0.002  # of the picture: smaller segments keep their colour, and go without a name
_RIM = (20, 20, 20)

Box = tuple[float, float, float, float]


@cache
def colour(index: int) -> tuple[int, int, int]:
    """Of class ``index``: hues a golden section apart, in three kinds of brightness; neighbours differ plainly."""
    hue = (0.61803398875 * index + 0.03) % 1
    value, saturation = ((1.0, 0.75), (0.75, 0.9), (0.95, 0.45))[index // 7 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


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


def draw_segments(picture: Image.Image, classes: NDArray[np.uint8], names: dict[int, str]) -> Image.Image:
    """The picture with each segment in its class's colour, and its name in the midst of its widest part; of names that
    would lie on one another that of the largest."""
    below = picture.convert("RGB")
    drawn = Image.blend(below, as_png(classes).convert("RGB"), _BLENDED)
    draw = ImageDraw.Draw(drawn)
    size = max(10, min(below.size) // 28)
    numbers, counts = np.unique(classes, return_counts=True)
    taken: list[Box] = []
    for index, count in sorted(
        zip(numbers.tolist(), counts.tolist(), strict=True), key=lambda each: -each[1]
    ):
        if count >= _NAMED * classes.size:
            y, x = _midst(classes == index)
            _write_on(draw, (x, y), names[index], size, below.size, taken)
    return drawn


def _midst(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """(row, column) of the pixel of ``mask`` that is farthest from its edge."""
    from scipy.ndimage import distance_transform_edt  # here: training waits for no drawing

    deep = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(deep)), mask.shape)
    return int(row), int(column)


def draw_objects(picture: Image.Image, answer: dict[str, Any]) -> Image.Image:
    """The picture with the objects of the task's ``answer``, the best in front: masks in their classes' colours, boxes,
    names and, where there are some, scores."""
    pixels = np.asarray(picture.convert("RGB")).copy()
    objects = answer["objects"]
    for found in reversed(
        objects
    ):  # one after another: all of a large picture's masks at once fill the memory
        if "segmentation" in found:
            mask = decode(parse(found["segmentation"], tuple(answer["size"])))
            tint = np.array(colour(found["index"]))
            pixels[mask] = (pixels[mask] * (1 - _TINTED) + tint * _TINTED).astype(np.uint8)
    boxes = [_corners(found["bbox"]) for found in objects]
    drawn = Image.fromarray(_framed(pixels, boxes, [colour(found["index"]) for found in objects]))
    draw = ImageDraw.Draw(drawn)
    size = max(10, min(drawn.size) // 32)
    taken: list[Box] = []
    for found, box in zip(objects, boxes, strict=True):
        score = f" {found['score']:.0%}" if "score" in found else ""
        _name(draw, box, found["class"] + score, size, drawn.size, taken)
    return drawn


def _framed(
    pixels: NDArray[np.uint8], boxes: list[Box], colours: list[tuple[int, int, int]]
) -> NDArray[np.uint8]:
    """(H, W, 3) with the boxes drawn, the first in front."""
    if not boxes:
        return pixels
    line = max(1, min(pixels.shape[:2]) // 250)
    image, places = torch.from_numpy(pixels).permute(2, 0, 1), torch.tensor(boxes[::-1])
    # Dark on both sides of the colour: a line of one colour is lost on a ground like it.
    grown = places + torch.tensor([-line, -line, line, line])
    image = draw_bounding_boxes(image, grown, colors=_RIM, width=3 * line)
    image = draw_bounding_boxes(image, places, colors=colours[::-1], width=line)
    out: NDArray[np.uint8] = image.permute(1, 2, 0).numpy()
    return out


def _corners(bbox: list[float]) -> Box:
    x, y, wide, high = bbox
    return x, y, x + wide, y + high


def _name(
    draw: ImageDraw.ImageDraw, box: Box, text: str, size: int, within: tuple[int, int], taken: list[Box]
) -> None:
    """Above the box, below it, or on its upper or lower edge, where there is room; else nowhere."""
    middle = (box[0] + box[2]) / 2
    for y in (box[1] - 0.7 * size, box[3] + 0.7 * size, box[1] + 0.7 * size, box[3] - 0.7 * size):
        before = len(taken)
        _write_on(draw, (middle, y), text, size, within, taken)
        if len(taken) > before:
            return


def _write_on(
    draw: ImageDraw.ImageDraw,
    middle: tuple[float, float],
    text: str,
    size: int,
    within: tuple[int, int],
    taken: list[Box],
) -> None:
    """White letters with a dark rim, legible on light and dark, around ``middle`` but not beyond the picture's edge;
    ``within`` is its (width, height). Nothing is written over a box that is ``taken``; what is written takes
    its own."""
    rim = max(1, size // 8)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=_font(size), stroke_width=rim)
    x = min(max(middle[0] - (right - left) / 2, 0), max(within[0] - (right - left), 0))
    y = min(max(middle[1] - (bottom - top) / 2, 0), max(within[1] - (bottom - top), 0))
    box = x, y, x + right - left, y + bottom - top
    if any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
        return
    taken.append(box)
    draw.text((x - left, y - top), text, "white", font=_font(size), stroke_width=rim, stroke_fill=_RIM)

"""Objects on their picture: masks in their classes' colours, boxes, names and scores."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from crosshead.data.coco.rle import decode, parse
from crosshead.tasks.drawing import Box, colour, write_on

_STRENGTH = 0.45  # of a mask's colour over the picture


def overlay(picture: Image.Image, answer: dict[str, Any]) -> Image.Image:
    """The picture with the objects of the task's ``answer``, the best in front."""
    pixels = np.asarray(picture.convert("RGB")).copy()
    for found in reversed(answer["objects"]):
        if "segmentation" in found:
            mask = decode(parse(found["segmentation"], tuple(answer["size"])))
            tint = np.array(colour(found["index"]))
            pixels[mask] = (pixels[mask] * (1 - _STRENGTH) + tint * _STRENGTH).astype(np.uint8)
    drawn = Image.fromarray(pixels)
    draw = ImageDraw.Draw(drawn)
    line = max(1, min(drawn.size) // 250)
    boxes = [_corners(found["bbox"]) for found in answer["objects"]]
    for found, box in reversed([*zip(answer["objects"], boxes, strict=True)]):
        # Dark on both sides of the colour: a line of one colour is lost on a ground like it.
        for grow, shade in ((line, (20, 20, 20)), (-line, (20, 20, 20)), (0, colour(found["index"]))):
            _frame(draw, box, grow, shade, line)
    size = max(10, min(drawn.size) // 32)
    taken: list[Box] = []
    for found, box in zip(answer["objects"], boxes, strict=True):
        _name(draw, box, f"{found['class']} {found['score']:.0%}", size, drawn.size, taken)
    return drawn


def _corners(bbox: list[float]) -> Box:
    x, y, wide, high = bbox
    return x, y, x + wide, y + high


def _frame(draw: ImageDraw.ImageDraw, box: Box, grow: int, shade: tuple[int, int, int], line: int) -> None:
    left, top, right, bottom = box
    left, top, right, bottom = left - grow, top - grow, right + grow, bottom + grow
    if right >= left and bottom >= top:
        draw.rectangle((left, top, right, bottom), outline=shade, width=line)


def _name(
    draw: ImageDraw.ImageDraw, box: Box, text: str, size: int, within: tuple[int, int], taken: list[Box]
) -> None:
    """Above the box, below it, or on its upper or lower edge, where there is room; else nowhere."""
    middle = (box[0] + box[2]) / 2
    for y in (box[1] - 0.7 * size, box[3] + 0.7 * size, box[1] + 0.7 * size, box[3] - 0.7 * size):
        before = len(taken)
        write_on(draw, (middle, y), text, size, within, taken)
        if len(taken) > before:
            return

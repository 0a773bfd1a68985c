"""Drawing what a model says onto pictures."""

import colorsys
from functools import cache

from PIL import ImageDraw, ImageFont


@cache
def colour(index: int) -> tuple[int, int, int]:
    """Of class ``index``: hues a golden section apart, in three kinds of brightness; neighbours differ plainly."""
    hue = (0.61803398875 * index + 0.03) % 1
    value, saturation = ((1.0, 0.75), (0.75, 0.9), (0.95, 0.45))[index // 7 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


@cache
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


Box = tuple[float, float, float, float]


def write_on(
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
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font(size), stroke_width=rim)
    x = min(max(middle[0] - (right - left) / 2, 0), max(within[0] - (right - left), 0))
    y = min(max(middle[1] - (bottom - top) / 2, 0), max(within[1] - (bottom - top), 0))
    box = x, y, x + right - left, y + bottom - top
    if any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
        return
    taken.append(box)
    draw.text((x - left, y - top), text, "white", font=font(size), stroke_width=rim, stroke_fill=(20, 20, 20))

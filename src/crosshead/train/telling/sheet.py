"""A batch as the model sees it, as one picture."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from crosshead.data.sets.common import DatasetInfo

_SMALLEST = 96  # pixels of a side: smaller pictures are enlarged by a whole factor
_LINE, _GAP = 14, 6


def sheet(images: Sequence[Tensor], captions: Sequence[str], info: DatasetInfo) -> Image.Image:
    """Pictures (C, H, W) as they were normalised, in rows, each above its caption."""
    pictures = [_picture(image, info) for image in images]
    width = max(picture.width for picture in pictures) + _GAP
    height = max(picture.height for picture in pictures) + _LINE + _GAP
    columns = min(len(pictures), max(1, round(math.sqrt(len(pictures) * height / width * 1.5))))
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw = ImageDraw.Draw(whole)
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = _GAP + place % columns * width, _GAP + place // columns * height
        whole.paste(picture, (left, top))
        draw.text((left, top + picture.height + 1), _fitting(draw, caption, width - _GAP), fill="#333333")
    return whole


def captions(targets: Any, names: Sequence[str], count: int) -> list[str]:
    """What each of ``count`` pictures is to be taken for: a class, shares of classes, or a number."""
    if not isinstance(targets, Tensor):
        return [""] * count
    if targets.ndim == 1 and not targets.is_floating_point():
        return [names[target] for target in targets.tolist()]
    if targets.ndim == 1:
        return [f"{target:g}" for target in targets.tolist()]
    if targets.ndim > 2:  # a class a pixel
        return [""] * count
    return [_shares(row, names) for row in targets.tolist()]


def _shares(row: list[float], names: Sequence[str]) -> str:
    most = sorted(
        ((share, name) for share, name in zip(row, names, strict=True) if share > 0.005), reverse=True
    )
    if len(most) == 1 or all(share == 1 for share, _ in most):
        return ", ".join(name for _, name in most)
    return ", ".join(f"{name} {share:.0%}" for share, name in most[:3])


def _picture(image: Tensor, info: DatasetInfo) -> Image.Image:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (info.mean, info.std))
    pixels = (image.float() * std + mean).clamp(0, 1).mul(255).round().byte()
    array = pixels.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).convert("RGB")
    factor = -(-_SMALLEST // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    text = text.encode("latin-1", "replace").decode("latin-1")  # what Pillow's own font can write
    if draw.textlength(text) <= width:
        return text
    while text and draw.textlength(text + "...") > width:
        text = text[:-1]
    return text + "..."

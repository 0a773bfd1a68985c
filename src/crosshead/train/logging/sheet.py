"""A batch as the model sees it, as one picture."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from crosshead.data.base import IGNORED, DatasetInfo
from crosshead.tasks.drawing import colour

_SMALLEST = 96  # pixels of a side: smaller pictures are enlarged by a whole factor
_LINE, _GAP = 14, 6
_STRENGTH = 0.45  # of a mask's colour over the picture


def sheet(
    images: Sequence[Tensor], targets: Sequence[Any], captions: Sequence[str], info: DatasetInfo
) -> Image.Image:
    """Pictures (C, H, W) as they were normalised, in rows, each above its caption; what has a place in them, boxes,
    masks and classes of pixels, is drawn onto them."""
    pictures = [_picture(image, target, info) for image, target in zip(images, targets, strict=True)]
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


def targets_of(targets: Any, count: int) -> list[Any]:
    """A batch's targets, picture by picture."""
    return list(targets) if targets is not None else [None] * count


def captions(targets: Any, names: Sequence[str], count: int) -> list[str]:
    """What each of ``count`` pictures is to be taken for: a class, shares of classes, a number, or what is in it."""
    if isinstance(targets, list):
        return [_counted(target["labels"], names) for target in targets]
    if not isinstance(targets, Tensor):
        return [""] * count
    if targets.ndim == 1 and not targets.is_floating_point():
        return [names[target] for target in targets.tolist()]
    if targets.ndim == 1:
        return [f"{target:g}" for target in targets.tolist()]
    if targets.ndim > 2:  # a class a pixel
        return [_shares(_of_pixels(classes, len(names)), names) for classes in targets]
    return [_shares(row, names) for row in targets.tolist()]


def _counted(labels: Tensor, names: Sequence[str]) -> str:
    found = Counter(labels.tolist()).most_common()
    return ", ".join(f"{count} x {names[label]}" for label, count in found) or "no object"


def _of_pixels(classes: Tensor, count: int) -> list[float]:
    known = classes[classes != IGNORED].flatten()
    return (torch.bincount(known, minlength=count) / max(classes.numel(), 1)).tolist()


def _shares(row: list[float], names: Sequence[str]) -> str:
    most = sorted(
        ((share, name) for share, name in zip(row, names, strict=True) if share > 0.005), reverse=True
    )
    if all(share == 1 for share, _ in most):
        return ", ".join(name for _, name in most)
    return ", ".join(f"{name} {share:.0%}" for share, name in most[:3])


def _picture(image: Tensor, target: Any, info: DatasetInfo) -> Image.Image:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (info.mean, info.std))
    pixels = (image.float() * std + mean).clamp(0, 1).mul(255).round().byte()
    pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    factor = -(-_SMALLEST // max(pixels.shape[-2:]))
    drawn = _drawn(_enlarged(pixels, factor), target, factor, info.class_names)
    return Image.fromarray(drawn.permute(1, 2, 0).numpy())


def _drawn(pixels: Tensor, target: Any, factor: int, names: Sequence[str]) -> Tensor:
    """``pixels`` (3, H, W) with what ``target`` says of places, given before they were enlarged by ``factor``. A class
    that is called background is left as it is: its colour would lie over nearly all."""
    if isinstance(target, dict):
        colours = [colour(label) for label in target["labels"].tolist()]
        if not colours:
            return pixels
        if "masks" in target:
            masks = _enlarged(target["masks"], factor).bool()
            whole = torch.zeros(len(masks), *pixels.shape[-2:], dtype=torch.bool)
            whole[:, : masks.shape[1], : masks.shape[2]] = masks  # beside them is padding
            pixels = draw_segmentation_masks(pixels, whole, alpha=_STRENGTH, colors=colours)
        width = 1 + max(pixels.shape[-2:]) // 400
        return draw_bounding_boxes(pixels, target["boxes"] * factor, colors=colours, width=width)
    if isinstance(target, Tensor) and target.ndim == 2:
        there = [
            index
            for index in target.unique().tolist()
            if index != IGNORED and names[index].lower() != "background"
        ]
        if not there:
            return pixels
        masks = _enlarged(torch.stack([target == index for index in there]), factor)
        return draw_segmentation_masks(pixels, masks, alpha=_STRENGTH, colors=[colour(i) for i in there])
    return pixels


def _enlarged(pixels: Tensor, factor: int) -> Tensor:
    return pixels.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    text = text.encode("latin-1", "replace").decode("latin-1")  # what Pillow's own font can write
    if draw.textlength(text) <= width:
        return text
    while text and draw.textlength(text + "...") > width:
        text = text[:-1]
    return text + "..."

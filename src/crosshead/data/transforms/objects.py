"""Pictures and their objects together, for detection and instance segmentation.

Geometry first, as one window: a piece of the picture, resized, of which a piece is kept. The picture, the boxes and the
masks go through the same window, and masks are decoded only for the pixels that it keeps. Then torchvision's transforms
v2, of all three at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from crosshead.data.base import DatasetInfo
from crosshead.data.coco.picture_objects import Objects
from crosshead.data.coco.rle import RLE, decode_columns
from crosshead.data.decode.images import BrokenImage
from crosshead.data.transforms.maps import resized
from crosshead.data.transforms.pipeline import channels_of, colours_of, image_size, normalise, window_factor
from crosshead.recipe.schema import AugmentConfig, DataConfig, TaskConfig

Target = dict[str, Any]
_LEAST = 1.0  # pixels that a box is wide and high, or it is none any more
_LEAST_PIECE = 0.5  # of a side, in a random crop


@dataclass(frozen=True)
class Window:
    """``piece`` (top, left, height, width) of a picture, resized to ``size`` (height, width), of which ``kept`` (top,
    left, height, width) is seen."""

    piece: tuple[int, int, int, int]
    size: tuple[int, int]
    kept: tuple[int, int, int, int]

    @property
    def seen(self) -> tuple[int, int]:
        """(height, width) of what comes out."""
        return self.kept[2], self.kept[3]

    def picture(self, pixels: Tensor, data: DataConfig) -> Tensor:
        """Of pixels (C, height, width)."""
        (top, left, height, width), (y, x, high, wide) = self.piece, self.kept
        piece = pixels[..., top : top + height, left : left + width]
        return resized(piece, self.size, data)[..., y : y + high, x : x + wide]

    def boxes(self, boxes: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """(n, 4), not yet cut off at the borders of what is seen, and cut off."""
        (top, left, height, width), (y, x, high, wide) = self.piece, self.kept
        scale = self.size[1] / width, self.size[0] / height
        whole = (torch.from_numpy(boxes).double() - torch.tensor([left, top] * 2)) * torch.tensor(scale * 2)
        whole = whole - torch.tensor([x, y] * 2)
        most = torch.tensor([wide, high] * 2, dtype=torch.float64)
        return whole.float(), torch.minimum(whole.clamp(min=0), most).float()

    def masks(self, masks: Sequence[RLE]) -> Tensor:
        """(n, height, width) uint8: at each pixel's centre what the mask says there."""
        rows, columns = (
            _nearest(self.piece[k], self.piece[k + 2], self.size[k], self.kept[k], self.kept[k + 2])
            for k in (0, 1)
        )
        seen = np.zeros((len(masks), *self.seen), np.uint8)
        for mask, out in zip(masks, seen, strict=True):
            first, strip = decode_columns(mask)
            # Most objects are small, and pixels are in order: what is not beside the object is left alone.
            there = slice(*np.searchsorted(columns, (first, first + len(strip))))
            drawn = strip[columns[there] - first]
            high = np.flatnonzero(drawn.any(0))
            if len(high):
                across = slice(*np.searchsorted(rows, (high[0], high[-1] + 1)))
                out[across, there] = drawn[:, rows[across]].T
        return torch.from_numpy(seen)


def _nearest(begin: int, length: int, size: int, first: int, count: int) -> NDArray[np.int64]:
    """Of one direction: which of the picture's pixels lies below each that is kept."""
    centres = (np.arange(first, first + count) + 0.5) * (length / size)
    return begin + np.minimum(centres.astype(np.int64), length - 1)


class ObjectAugmentation:
    """A picture and its objects -> (C, h, w) float32, and a dict as ``TrainingObjects`` describes it.

    A piece with ``crop_chance``; its shorter side one of ``short_sides`` or ``data.eval_resize``, its longer one at
    most ``data.longest``, or else large-scale jitter (Ghiasi et al., arXiv 2012.07177); a flip; photometric distortion.
    Objects of which less than a pixel is left are left out; an object that was cut has the box of what is left of its
    mask, where it has one. Draws from PyTorch's global generator alone.

    Raises:
        ValueError: settings of which one would overrule another.
    """

    def __init__(self, data: DataConfig, augment: AugmentConfig, info: DatasetInfo) -> None:
        if augment.jitter_range is not None and augment.short_sides is not None:
            raise ValueError(
                "augment.jitter_range and augment.short_sides both say how large pictures are: set one of them to null"
            )
        self.data, self.augment, self.info = data, augment, info
        self.size = image_size(data) if augment.jitter_range is not None else None
        steps: list[v2.Transform] = []
        if augment.horizontal_flip:
            steps.append(v2.RandomHorizontalFlip(augment.horizontal_flip))
        if augment.photometric:
            steps.append(v2.RandomPhotometricDistort(p=augment.photometric))
        self.rest = v2.Compose([*steps, v2.Identity()])

    def __call__(self, picture: Image.Image, objects: Objects) -> tuple[Tensor, Target]:
        window = self._window(picture)
        target = _through(window, objects)
        # Colours are costly: the picture is cut before it is changed.
        pixels = window.picture(colours_of(picture, self.info), self.data)
        image, target = self.rest(tv_tensors.Image(pixels), target)
        target = {key: value.as_subclass(Tensor) for key, value in target.items()}
        return normalise(image.as_subclass(Tensor), self.info), target | {"size": torch.tensor(window.seen)}

    def _window(self, picture: Image.Image) -> Window:
        piece = (0, 0, picture.height, picture.width)
        if self.augment.crop_chance and float(torch.rand(())) < self.augment.crop_chance:
            piece = _random_piece(picture.height, picture.width)
        if self.size is not None:
            return self._jittered(piece, self.size)
        short = self.data.eval_resize
        if self.augment.short_sides:
            short = self.augment.short_sides[int(torch.randint(len(self.augment.short_sides), ()))]
        size = scaled(piece[2:], _fitting(piece[2:], short, self.data.longest), self.data)
        return Window(piece, size, (0, 0, *size))

    def _jittered(self, piece: tuple[int, int, int, int], wanted: tuple[int, int]) -> Window:
        assert self.augment.jitter_range is not None
        low, high = self.augment.jitter_range
        factor = low + (high - low) * float(torch.rand(()))
        fits = min(most / side for most, side in zip(wanted, piece[2:], strict=True))
        size = scaled(piece[2:], factor * fits, self.data)
        height, width = (min(side, most) for side, most in zip(size, wanted, strict=True))
        top, left = (
            int(torch.randint(side - kept + 1, ())) for side, kept in zip(size, (height, width), strict=True)
        )
        return Window(piece, size, (top, left, height, width))


def whole_object_picture(
    picture: Image.Image, data: DataConfig, info: DatasetInfo, task: TaskConfig | None = None
) -> Tensor:
    """Its shorter side ``data.eval_resize``, the longer one at most ``data.longest``, as far as these are set, and
    normalised; (C, h, w). One that ``task`` cuts into windows keeps its own size, times ``task.window_scale``."""
    own = (picture.height, picture.width)
    pixels = channels_of(picture, info.channels)
    factor = window_factor(own, task) or _fitting(own, data.eval_resize, data.longest)
    size = scaled(own, factor, data)
    return normalise(resized(pixels, size, data), info)


def _through(window: Window, objects: Objects) -> Target:
    """What is to be found of ``objects`` in the window, as tv_tensors."""
    wanted = np.flatnonzero(~objects.crowd)
    whole, boxes = window.boxes(objects.boxes[wanted])
    left = _wider_than(boxes, 0)
    whole, boxes, wanted = whole[left], boxes[left], wanted[left.numpy()]
    target: Target = {}
    left = _wider_than(boxes, _LEAST)
    if objects.masks is not None:
        masks = window.masks([objects.masks[k] for k in wanted])
        drawn = masks.flatten(1).any(1).bool()
        cut = (whole != boxes).any(1) & drawn
        boxes[cut] = boxes_of(masks[cut])
        left = _wider_than(boxes, _LEAST) & drawn
        target["masks"] = tv_tensors.Mask(masks if left.all() else masks[left])
    return {
        "boxes": tv_tensors.BoundingBoxes(boxes[left], format="XYXY", canvas_size=window.seen),
        "labels": torch.from_numpy(objects.labels[wanted])[left],
    } | target


def _wider_than(boxes: Tensor, least: float) -> Tensor:
    sides = boxes[:, 2:] - boxes[:, :2]
    return ((sides >= least) & (sides > 0)).all(1)


def boxes_of(masks: Tensor) -> Tensor:
    """The box (n, 4) float32 around each mask (n, height, width) that has a pixel."""
    boxes = torch.zeros(len(masks), 4)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        box[:] = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return boxes


def _random_piece(height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width); each side is at least half of the picture's."""
    high, wide = (
        int(torch.randint(max(1, round(side * _LEAST_PIECE)), side + 1, ())) for side in (height, width)
    )
    return (
        int(torch.randint(height - high + 1, ())),
        int(torch.randint(width - wide + 1, ())),
        high,
        wide,
    )


def _fitting(size: tuple[int, int], short: int | None, longest: int | None) -> float:
    """The factor that makes the shorter side ``short`` unless the longer one would be above ``longest``."""
    factor = 1.0 if short is None else short / min(size)
    return factor if longest is None else min(factor, longest / max(size))


def scaled(size: tuple[int, int], factor: float, data: DataConfig) -> tuple[int, int]:
    """(height, width) times ``factor``; ``BrokenImage`` where it would be larger than a picture may be."""
    height, width = (max(1, round(side * factor)) for side in size)
    if height * width > data.max_megapixels * 1e6:
        raise BrokenImage(
            "picture",
            f"{size[1]} x {size[0]} pixels would be resized to {width} x {height}, above data.max_megapixels",
        )
    return height, width

"""A window on a picture and its objects: what of the boxes and masks is seen through it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from crosshead.data.coco.instances import Objects
from crosshead.data.coco.rle import RLE, decode_columns
from crosshead.data.transforms.composing import Target
from crosshead.data.transforms.maps import resized
from crosshead.recipe.schema import DataConfig

_LEAST = 1.0  # pixels that a box is wide and high, or it is none any more

Place = tuple[int, int, int, int]  # top, left, height, width


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


def cut_to(piece: Place, size: tuple[int, int], most: tuple[int, int]) -> Window:
    """``piece`` resized to ``size``, of which at random no more than ``most`` is kept."""
    height, width = (min(side, limit) for side, limit in zip(size, most, strict=True))
    top, left = (
        int(torch.randint(side - kept + 1, ())) for side, kept in zip(size, (height, width), strict=True)
    )
    return Window(piece, size, (top, left, height, width))


def seen_through(window: Window, objects: Objects) -> Target:
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


def tidy(target: Target) -> Target:
    """Boxes cut off at the edges, those of masks drawn anew, and what is no object any more left out."""
    boxes, size = target["boxes"].as_subclass(Tensor).clone(), target["boxes"].canvas_size
    there = torch.ones(len(boxes), dtype=torch.bool)
    if "masks" in target:
        masks = target["masks"].as_subclass(Tensor)
        there = masks.flatten(1).any(1).bool()
        boxes[there] = boxes_of(masks[there])
    most = torch.tensor([size[1], size[0]] * 2)
    boxes = torch.minimum(boxes.clamp(min=0), most)
    there &= _wider_than(boxes, _LEAST)
    out: Target = {
        "boxes": tv_tensors.BoundingBoxes(boxes[there], format="XYXY", canvas_size=size),
        "labels": target["labels"][there],
    }
    return out | ({"masks": tv_tensors.Mask(masks[there])} if "masks" in target else {})


def boxes_of(masks: Tensor) -> Tensor:
    """The box (n, 4) float32 around each mask (n, height, width) that has a pixel."""
    boxes = torch.zeros(len(masks), 4)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        box[:] = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return boxes

"""Pictures and their maps together: torchvision's transforms v2, of both at once.

The usual course of semantic segmentation: a random size, a random piece of it in which no class takes nearly all, a
flip, photometric distortion, and padding with what has no class where the piece is smaller than wanted.
"""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from crosshead.data.base import IGNORED, DatasetInfo
from crosshead.data.decode.images import BrokenImage
from crosshead.data.transforms.composing import Samples, another, paste_classes, quadrants
from crosshead.data.transforms.geometry import Classes, happens, mean_colour, moving_steps
from crosshead.data.transforms.pipeline import channels_of, colours_of, image_size, normalise, window_factor
from crosshead.recipe.schema import AugmentConfig, DataConfig, TaskConfig

_TRIES = 10  # of a piece, before one with too much of a class is taken
_LONGEST = 4  # times the shorter side: what a resized picture's longer one may be, as 512 x 2048


class MapAugmentation:
    """A picture and its classes -> (C, H, W) float32 and (H, W) uint8 of ``data.image_size``.

    Draws from PyTorch's global generator alone.
    """

    def __init__(
        self,
        data: DataConfig,
        augment: AugmentConfig,
        info: DatasetInfo,
        others: Samples | None = None,
    ) -> None:
        self.data, self.augment, self.info, self.others = data, augment, info, others
        self.size, self.fill = image_size(data), mean_colour(info)
        self.rest = moving_steps(augment, info, oblong=self.size[0] != self.size[1])

    def __call__(self, picture: Image.Image, classes: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        if happens(self.augment.mosaic):
            pixels, numbers = self._mosaic(picture, classes)
        else:
            pixels, numbers = self._view(picture, classes, self.size)
        if happens(self.augment.copy_paste) and (other := another(self.others)) is not None:
            over = self._whole(*self._view(other[0], other[1], self.size))
            pixels, numbers = paste_classes(self._whole(pixels, numbers), over, IGNORED)
        moved, its_map = self.rest(tv_tensors.Image(pixels), Classes(numbers[None]))
        image = normalise(moved.as_subclass(Tensor), self.info)
        height, width = image.shape[-2:]
        missing = (0, self.size[1] - width, 0, self.size[0] - height)
        return functional.pad(image, missing), functional.pad(
            its_map.as_subclass(Tensor)[0], missing, value=IGNORED
        )

    def _whole(self, pixels: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """As large as is wanted, in the mean colour and without a class beside the piece."""
        canvas = torch.tensor(self.fill, dtype=torch.uint8)[:, None, None].repeat(1, *self.size)
        classes = torch.full(self.size, IGNORED, dtype=torch.uint8)
        height, width = numbers.shape
        canvas[:, :height, :width], classes[:height, :width] = pixels, numbers
        return canvas, classes

    def _mosaic(self, picture: Image.Image, classes: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Pieces of four pictures that meet in a point."""
        canvas, numbers = self._whole(torch.empty(len(self.fill), 0, 0), torch.empty(0, 0))
        for k, (top, left, height, width) in enumerate(quadrants(self.size)):
            if (own := (picture, classes) if k == 0 else another(self.others)) is not None:
                pixels, its = self._view(own[0], own[1], (height, width))
                high, wide = its.shape
                canvas[:, top : top + high, left : left + wide] = pixels
                numbers[top : top + high, left : left + wide] = its
        return canvas, numbers

    def _view(
        self, picture: Image.Image, classes: NDArray[np.uint8], most: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """A piece of at most ``most`` (height, width) of the picture at a random size: uint8 (C, h, w) and (h, w)."""
        pixels, numbers = colours_of(picture, self.info), torch.from_numpy(classes)
        scale = _scale(picture, self.data)
        if self.augment.scale_range is not None:
            low, high = self.augment.scale_range
            scale *= low + (high - low) * float(torch.rand(()))
        size = _scaled(picture, scale, self.data)
        numbers = _resized_map(numbers, size)
        top, left, height, width = self._piece(numbers, most)
        # Colours are costly: the picture is cut before it is changed.
        pixels = resized(pixels, size, self.data)[:, top : top + height, left : left + width]
        return pixels, numbers[top : top + height, left : left + width]

    def _piece(self, numbers: Tensor, most: tuple[int, int]) -> tuple[int, int, int, int]:
        """(top, left, height, width) at random; another one where a class has more than ``crop_most`` of it."""
        height, width = (min(own, limit) for own, limit in zip(numbers.shape, most, strict=True))
        top = left = 0
        for _ in range(_TRIES):
            top = int(torch.randint(numbers.shape[0] - height + 1, ()))
            left = int(torch.randint(numbers.shape[1] - width + 1, ()))
            if self.augment.crop_most == 1:
                break
            counts = torch.bincount(numbers[top : top + height, left : left + width].flatten(), minlength=256)
            counts[IGNORED] = 0
            if counts.count_nonzero() > 1 and counts.max() <= self.augment.crop_most * counts.sum():
                break
        return top, left, height, width


def whole_picture(
    picture: Image.Image, data: DataConfig, info: DatasetInfo, task: TaskConfig | None = None
) -> Tensor:
    """Resized so that its shorter side is ``data.eval_resize``, where that is set, and normalised; (C, H, W). One that
    ``task`` cuts into windows keeps its own size, times ``task.window_scale``."""
    pixels = channels_of(picture, info.channels)
    scale = window_factor((picture.height, picture.width), task) or _scale(picture, data)
    return normalise(resized(pixels, _scaled(picture, scale, data), data), info)


def _scale(picture: Image.Image, data: DataConfig) -> float:
    """From the picture's own size to the one of ``data.eval_resize``."""
    if data.eval_resize is None:
        return 1.0
    shorter, longer = sorted(picture.size)
    return min(data.eval_resize / shorter, _LONGEST * data.eval_resize / longer)


def _scaled(picture: Image.Image, scale: float, data: DataConfig) -> tuple[int, int]:
    """(height, width); ``BrokenImage`` where it would be larger than a picture may be."""
    height, width = (max(1, round(side * scale)) for side in (picture.height, picture.width))
    if height * width > data.max_megapixels * 1e6:
        raise BrokenImage(
            "picture",
            f"{picture.width} x {picture.height} pixels would be resized to {width} x {height}, above "
            "data.max_megapixels",
        )
    return height, width


def resized(pixels: Tensor, size: tuple[int, int], data: DataConfig) -> Tensor:
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return F.resize(pixels, list(size), InterpolationMode(data.interpolation), antialias=True)


def _resized_map(numbers: Tensor, size: tuple[int, int]) -> Tensor:
    """The class at each new pixel's centre: torchvision's own way with masks is off by half a pixel and more."""
    if tuple(numbers.shape) == size:
        return numbers
    take = partial(F.resize, interpolation=InterpolationMode.NEAREST_EXACT)
    return take(numbers[None], list(size))[0]

"""Pictures and their objects together, for detection and instance segmentation.

Geometry first, as one window: a piece of the picture, resized, of which a piece is kept. The picture, the boxes and the
masks go through the same window, and masks are decoded only for the pixels that it keeps. Then torchvision's transforms
v2, of all three at once.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from crosshead.data.base import DatasetInfo
from crosshead.data.coco.instances import Objects
from crosshead.data.decode.images import BrokenImage
from crosshead.data.transforms.composing import (
    Samples,
    Target,
    View,
    another,
    blend,
    mosaic,
    paste_objects,
)
from crosshead.data.transforms.geometry import happens, mean_colour, moving_steps
from crosshead.data.transforms.maps import resized
from crosshead.data.transforms.object_window import Place, Window, cut_to, seen_through, tidy
from crosshead.data.transforms.pipeline import (
    channels_of,
    colours_of,
    has_affine,
    image_size,
    normalise,
    window_factor,
)
from crosshead.recipe.schema import AugmentConfig, DataConfig, TaskConfig

_LEAST_PIECE = 0.5  # of a side, in a random crop
_IN_MOSAIC = (0.4, 1.0)  # of its usual size, that a picture has in a mosaic
_IOU_CROP = v2.RandomIoUCrop()  # Liu et al., arXiv 1512.02325


class ObjectAugmentation:
    """A picture and its objects -> (C, h, w) float32, and a dict as ``TrainingObjects`` describes it.

    A piece with ``crop_chance`` or ``iou_crop``; its shorter side one of ``short_sides`` or ``data.eval_resize``, its
    longer one at most ``data.longest``, or else large-scale jitter (Ghiasi et al., arXiv 2012.07177); a mosaic with, or
    objects pasted out of, ``others``; what ``moving_steps`` does; mixup with another.
    Objects of which less than a pixel is left are left out; an object that was cut has the box of what is left of its
    mask, where it has one. Draws from PyTorch's global generator alone.

    Raises:
        ValueError: settings of which one would overrule another, or that need what the pictures have not.
    """

    def __init__(
        self,
        data: DataConfig,
        augment: AugmentConfig,
        info: DatasetInfo,
        others: Samples | None = None,
    ) -> None:
        if augment.crop_chance and augment.iou_crop:
            raise ValueError(
                "augment.crop_chance and augment.iou_crop both take a piece: set one of them to 0"
            )
        if augment.copy_paste and others is not None and not getattr(others, "masked", True):
            raise ValueError(
                "augment.copy_paste pastes objects by their masks, and these pictures have none: set it to 0"
            )
        if augment.jitter_range is not None and augment.short_sides is not None:
            raise ValueError(
                "augment.jitter_range and augment.short_sides both say how large pictures are: set one of them to null"
            )
        self.data, self.augment, self.info = data, augment, info
        self.others, self.fill = others, mean_colour(info)
        self.size = image_size(data) if augment.jitter_range is not None else None
        oblong = self.size is not None and self.size[0] != self.size[1]
        self.rest = moving_steps(augment, info, oblong=oblong)

    def __call__(self, picture: Image.Image, objects: Objects) -> tuple[Tensor, Target]:
        image, target = self._moved(picture, objects)
        if (
            self.augment.mixup
            and happens(self.augment.mixup_prob)
            and (other := another(self.others)) is not None
        ):
            image, target = blend((image, target), self._moved(*other), self.fill, self.augment.mixup)
        target = {key: value.as_subclass(Tensor) for key, value in target.items()}
        size = torch.tensor(image.shape[-2:])
        return normalise(image.as_subclass(Tensor), self.info), target | {"size": size}

    def _moved(self, picture: Image.Image, objects: Objects) -> View:
        """All but mixup."""
        composed = happens(self.augment.mosaic)
        view = self._mosaic(picture, objects) if composed else self._view(picture, objects)
        if happens(self.augment.copy_paste) and (other := another(self.others)) is not None:
            view = paste_objects(view, self._view(*other))
            view = view[0], tidy(view[1])
        image, target = self.rest(tv_tensors.Image(view[0]), view[1])
        return image, tidy(target) if has_affine(self.augment) else target

    def _view(self, picture: Image.Image, objects: Objects) -> View:
        """What is seen through a random window."""
        window = self._window((picture.height, picture.width), self._piece(objects))
        return self._through(
            window, picture, _centred(objects, window.piece) if self.augment.iou_crop else objects
        )

    def _through(self, window: Window, picture: Image.Image, objects: Objects) -> View:
        # Colours are costly: the picture is cut before it is changed.
        return window.picture(colours_of(picture, self.info), self.data), seen_through(window, objects)

    def _mosaic(self, picture: Image.Image, objects: Objects) -> View:
        """On a canvas of the size that the picture would have; each of four is shrunk, and a piece of it taken."""
        usual = self._window((picture.height, picture.width), (0, 0, picture.height, picture.width))

        def view(most: tuple[int, int], first: bool) -> View | None:
            if (own := (picture, objects) if first else another(self.others)) is None:
                return None
            size = (own[0].height, own[0].width)
            whole = self._window(size, (0, 0, *size))
            low, high = _IN_MOSAIC
            factor = low + (high - low) * float(torch.rand(()))
            window = cut_to(whole.piece, scaled(whole.size, factor, self.data), most)
            return self._through(window, *own)

        views = [partial(view, first=k == 0) for k in range(4)]
        return mosaic(self.size or usual.seen, self.fill, views)

    def _piece(self, objects: Objects) -> Place:
        height, width = objects.size
        if self.augment.crop_chance and happens(self.augment.crop_chance):
            return _random_piece(height, width)
        wanted = objects.boxes[~objects.crowd]
        if happens(self.augment.iou_crop) and len(wanted):
            boxes = tv_tensors.BoundingBoxes(
                torch.from_numpy(wanted), format="XYXY", canvas_size=objects.size
            )  # type: ignore[call-overload]
            if drawn := _IOU_CROP.make_params([boxes]):
                return drawn["top"], drawn["left"], drawn["height"], drawn["width"]
        return 0, 0, height, width

    def _window(self, whole: tuple[int, int], piece: Place) -> Window:
        if self.size is not None:
            return self._jittered(piece, self.size)
        short = self.data.eval_resize
        if self.augment.short_sides:
            short = self.augment.short_sides[int(torch.randint(len(self.augment.short_sides), ()))]
        size = scaled(piece[2:], fitting_factor(piece[2:], short, self.data.longest), self.data)
        return Window(piece, size, (0, 0, *size))

    def _jittered(self, piece: Place, wanted: tuple[int, int]) -> Window:
        assert self.augment.jitter_range is not None
        low, high = self.augment.jitter_range
        factor = low + (high - low) * float(torch.rand(()))
        fits = min(most / side for most, side in zip(wanted, piece[2:], strict=True))
        return cut_to(piece, scaled(piece[2:], factor * fits, self.data), wanted)


def _centred(objects: Objects, piece: Place) -> Objects:
    """Those whose centres lie in ``piece``, as an IoU crop wants them."""
    top, left, height, width = piece
    centres = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    rows = np.flatnonzero(((centres > (left, top)) & (centres < (left + width, top + height))).all(1))
    masks = None if objects.masks is None else [objects.masks[k] for k in rows.tolist()]
    return replace(
        objects,
        boxes=objects.boxes[rows],
        labels=objects.labels[rows],
        crowd=objects.crowd[rows],
        areas=objects.areas[rows],
        masks=masks,
    )


def whole_object_picture(
    picture: Image.Image, data: DataConfig, info: DatasetInfo, task: TaskConfig | None = None
) -> Tensor:
    """Its shorter side ``data.eval_resize``, the longer one at most ``data.longest``, as far as these are set, and
    normalised; (C, h, w). One that ``task`` cuts into windows keeps its own size, times ``task.window_scale``."""
    own = (picture.height, picture.width)
    pixels = channels_of(picture, info.channels)
    factor = window_factor(own, task) or fitting_factor(own, data.eval_resize, data.longest)
    size = scaled(own, factor, data)
    return normalise(resized(pixels, size, data), info)


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


def fitting_factor(size: tuple[int, int], short: int | None, longest: int | None) -> float:
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

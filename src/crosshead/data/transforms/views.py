"""Random views of a whole batch at once: flip, resized crop and affine map as one sampling of one grid.

For pictures of one size in memory, where a Python call for each would cost more than its training step.
Each picture's numbers are drawn from its own key, so the batch that it is in changes nothing.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as nnf

from crosshead.data.base import ArrayImages, DatasetInfo, ImageSet
from crosshead.data.random import Indices, keys, seeded_globals, uniforms
from crosshead.data.transforms.pipeline import erasing, fit, grow, has_affine, image_size, normalise
from crosshead.recipe.schema import AugmentConfig, DataConfig

CROP_TRIES = 10  # as torchvision's RandomResizedCrop


def serves(images: ImageSet, augment: AugmentConfig) -> bool:
    """Whether the pictures are in memory and every augmentation asked for has a batched form."""
    return isinstance(images, ArrayImages) and augment.randaugment is None and not augment.color_jitter


def random_views(
    pixels: Tensor,
    data: DataConfig,
    augment: AugmentConfig,
    info: DatasetInfo,
    *,
    seed: int,
    epoch: int,
    index: Indices,
) -> Tensor:
    """Normalised views (B, C, H, W) float32 of ``pixels`` (B, C, h, w) uint8; ``index`` (B,) keys the draws.

    The distributions are those of ``training_transform``, but continuous: crops and shifts need not fall on
    whole pixels. What an affine map uncovers is black.
    """
    draws = _Draws(seed, epoch, index)
    whole = augment.crop_scale is None
    pictures = fit(pixels, data, eval_resize=None) if whole else grow(pixels, data)
    maps = _maps(pictures.shape[-2:], data, augment, draws)
    if maps is not None:
        pictures = _sample(pictures.float() / 255, maps, data, "zeros" if has_affine(augment) else "border")
    views = normalise(pictures, info)
    return _erased(views, augment, draws) if augment.erasing else views


class _Draws:
    """Uniform numbers for each picture of the batch, by purpose."""

    def __init__(self, seed: int, epoch: int, index: Indices) -> None:
        self.seed, self.epoch, self.index = seed, epoch, index

    def keys(self, purpose: str) -> NDArray[np.uint64]:
        return keys(purpose, self.seed, self.epoch, self.index)

    def between(self, purpose: str, low: float, high: float, count: int = 1) -> NDArray[np.float64]:
        """(B, count) in [low, high)."""
        return low + (high - low) * uniforms(self.keys(purpose), count)


def _maps(size: torch.Size, data: DataConfig, augment: AugmentConfig, draws: _Draws) -> Tensor | None:
    """(B, 2, 3) from a view's coordinates to the picture's, both −1 ... 1; None if nothing moves."""
    parts = []
    if augment.crop_scale is not None:
        parts.append(_crop(size[0], size[1], augment.crop_scale, augment.crop_ratio, draws))
    if augment.horizontal_flip:
        parts.append(_flip(augment.horizontal_flip, draws))
    if has_affine(augment):
        parts.append(_affine(augment, image_size(data), draws))
    if not parts:
        return None
    total = parts[0]
    for part in parts[1:]:
        total = total @ part
    return torch.from_numpy(total[:, :2]).float()


def _identity(count: int) -> NDArray[np.float64]:
    return np.tile(np.eye(3), (count, 1, 1))


def _flip(probability: float, draws: _Draws) -> NDArray[np.float64]:
    maps = _identity(len(draws.index))
    maps[:, 0, 0] = np.where(draws.between("flip", 0, 1)[:, 0] < probability, -1.0, 1.0)
    return maps


def _crop(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], draws: _Draws
) -> NDArray[np.float64]:
    """Uniform in area, log aspect ratio and place; the first of ten tries that fits."""
    area = draws.between("crop area", *scale, CROP_TRIES) * height * width
    aspect = np.exp(draws.between("crop ratio", math.log(ratio[0]), math.log(ratio[1]), CROP_TRIES))
    wide, high = np.sqrt(area * aspect), np.sqrt(area / aspect)
    fits = (wide <= width) & (high <= height)
    first = np.argmax(fits, axis=1)[:, None]
    some = np.any(fits, axis=1, keepdims=True)[:, 0]
    # None fits: the largest centred crop within the ratios, as torchvision.
    fallback = min(max(width / height, ratio[0]), ratio[1])
    crop_w = np.where(some, np.take_along_axis(wide, first, 1)[:, 0], min(width, height * fallback)) / width
    crop_h = np.where(some, np.take_along_axis(high, first, 1)[:, 0], min(height, width / fallback)) / height
    place = np.where(some[:, None], draws.between("crop place", -1, 1, 2), 0.0)
    maps = _identity(len(area))
    maps[:, 0, 0], maps[:, 0, 2] = crop_w, place[:, 0] * (1 - crop_w)
    maps[:, 1, 1], maps[:, 1, 2] = crop_h, place[:, 1] * (1 - crop_h)
    return maps


def _affine(augment: AugmentConfig, size: tuple[int, int], draws: _Draws) -> NDArray[np.float64]:
    """The inverse of: scale and rotate about the centre, then shift; angles are true in oblong views too."""
    degrees, shift = augment.affine_degrees, augment.affine_translate
    angle = np.deg2rad(draws.between("affine angle", -degrees, degrees)[:, 0])
    zoom = draws.between("affine scale", *(augment.affine_scale or (1.0, 1.0)))[:, 0]
    moved = draws.between("affine shift", -2 * shift, 2 * shift, 2)  # a side is 2 long
    height, width = size
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    maps = _identity(len(angle))
    maps[:, 0, 0], maps[:, 0, 1] = cos, sin * height / width
    maps[:, 1, 0], maps[:, 1, 1] = -sin * width / height, cos
    maps[:, :2, 2] = -np.einsum("bij,bj->bi", maps[:, :2, :2], moved)
    return maps


def _sample(pictures: Tensor, maps: Tensor, data: DataConfig, outside: str) -> Tensor:
    height, width = image_size(data)
    grid = nnf.affine_grid(maps, [len(pictures), pictures.shape[1], height, width], align_corners=False)
    views = nnf.grid_sample(pictures, grid, data.interpolation, outside, align_corners=False)
    return views.clamp_(0, 1)  # bicubic weights overshoot


def _erased(views: Tensor, augment: AugmentConfig, draws: _Draws) -> Tensor:
    chosen = np.flatnonzero(draws.between("erase", 0, 1)[:, 0] < augment.erasing)
    own = draws.keys("erasing")
    always = erasing(augment, 1.0)
    with seeded_globals() as seed_all:
        for i in chosen:
            seed_all(int(own[i]))
            always(views[i])
    return views

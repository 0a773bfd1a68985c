"""From a picture to a graph's input, in Pillow and NumPy: the same numbers as ``data.transforms`` gives in PyTorch.

Resizing is PyTorch's of 8-bit pictures on a CPU with vector instructions, to the bit. Pillow's own, from which it was
made, has weights of more bits, and differs in a value out of two hundred by one."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosshead.data.decode.decoding import Bands, Decoding
from crosshead.data.decode.images import BrokenImage
from crosshead.export.about import About

_BITS = 15  # of a weight
_AT_ONCE = 64  # rows of the result


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -1/2."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


# The filter, and how far it reaches.
_FILTERS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], int]] = {
    "bilinear": (_triangle, 1),
    "bicubic": (_cubic, 2),
}


def resized(pixels: NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """Pixels (C, H, W) uint8 -> (C, *size), antialiased; ``interpolation`` is bilinear, bicubic or nearest."""
    if pixels.shape[-2:] == size:
        return pixels
    if interpolation == "nearest":
        rows, columns = (
            np.minimum(np.floor(np.arange(new) * np.float32(old / new)).astype(np.int64), old - 1)
            for old, new in zip(pixels.shape[-2:], size, strict=True)
        )
        return pixels[:, rows][:, :, columns]
    wide = _along_last(pixels, size[1], interpolation)
    return np.ascontiguousarray(
        _along_last(np.ascontiguousarray(wide.swapaxes(1, 2)), size[0], interpolation).swapaxes(1, 2)
    )


def _along_last(pixels: NDArray[np.uint8], length: int, interpolation: str) -> NDArray[np.uint8]:
    if pixels.shape[-1] == length:
        return pixels
    starts, weights, bits = _weights(pixels.shape[-1], length, interpolation)
    reach = np.minimum(starts[:, None] + np.arange(weights.shape[1]), pixels.shape[-1] - 1)
    out = np.empty((*pixels.shape[:-1], length), np.uint8)
    for first in range(0, length, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        sums = np.einsum("...nk,nk->...n", pixels[..., reach[part]], weights[part], dtype=np.int32)
        out[..., part] = ((sums + (1 << (bits - 1))) >> bits).clip(0, 255)
    return out


def _weights(old: int, new: int, interpolation: str) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """Where each new pixel begins to read, its weights (new, k) as integers, and how many bits these are shifted by."""
    kernel, reach = _FILTERS[interpolation]
    scale = old / new
    support = reach * max(scale, 1.0)
    center = scale * (np.arange(new) + 0.5)
    starts = np.maximum((center - support + 0.5).astype(np.int64), 0)
    ends = np.minimum((center + support + 0.5).astype(np.int64), old)
    taps = np.arange(math.ceil(support) * 2 + 1)
    weights = kernel((taps + starts[:, None] - center[:, None] + 0.5) / max(scale, 1.0))
    weights = np.where(taps < (ends - starts)[:, None], weights, 0.0)
    weights /= weights.sum(1, keepdims=True)
    bits = next((p for p in range(22) if int(0.5 + weights.max() * (1 << (p + 1))) >= 1 << _BITS), 22)
    return starts, np.trunc(weights * (1 << bits) + np.copysign(0.5, weights)).astype(np.int32), bits


_LONGEST = 4  # times the shorter side: what a segmenter's resized picture's longer one may be


def decoding_of(about: About) -> Decoding:
    """How the run's pictures were decoded."""
    level: Any = about.white_level
    exif: Any = about.exif
    return Decoding(about.max_megapixels, about.channels, level, about.value_range, exif)


def prepared(picture: Image.Image, about: About) -> NDArray[Any]:
    """(C, H, W): float32, normalised, or uint8 where the graph does that itself. Raises ``BrokenImage``."""
    pixels = _cut(picture, about) if about.crop == "center" else _whole(picture, about)
    return pixels if about.input == "pixels" else normalised(pixels, about)


def padded(image: NDArray[Any], about: About) -> NDArray[Any]:
    """With zeros below and to the right, as the model itself pads pictures that are taken whole; where sizes don't
    vary a segmenter's graph does that."""
    if about.crop == "center" or not ("size" in about.varying or about.answers == "objects"):
        return image
    return np.pad(image, ((0, 0), *((0, -side % about.multiple) for side in image.shape[1:])))


def normalised(pixels: NDArray[np.uint8], about: About) -> NDArray[np.float32]:
    """In float32, step by step as PyTorch does it."""
    mean, std = (np.asarray(each, np.float32)[:, None, None] for each in (about.mean, about.std))
    out: NDArray[np.float32] = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return out


def channels_of(picture: Image.Image, channels: int) -> NDArray[np.uint8]:
    """The picture's pixels (C, H, W), brought to ``channels`` where these are 1 or 3."""
    if isinstance(picture, Bands):
        values = picture.bands
    else:
        values = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return np.ascontiguousarray(np.moveaxis(np.atleast_3d(values), -1, 0))


def _cut(picture: Image.Image, about: About) -> NDArray[np.uint8]:
    """Resized to cover ``size``, or its shorter side to ``resize``, and cut at the centre."""
    height, width = picture.height, picture.width
    cover = about.size if about.resize is None else (about.resize, about.resize)
    scale = max(cover[0] / height, cover[1] / width)
    size = (max(cover[0], round(height * scale)), max(cover[1], round(width * scale)))
    _check(picture, size, about)
    if isinstance(picture, Bands):
        pixels = resized(channels_of(picture, 0), size, about.interpolation)
    else:
        if size != (height, width):
            picture = picture.resize(size[::-1], Image.Resampling[about.interpolation.upper()])
        pixels = channels_of(picture, about.channels)
    top, left = (round((own - wanted) / 2) for own, wanted in zip(size, about.size, strict=True))
    return pixels[:, top : top + about.size[0], left : left + about.size[1]]


def _whole(picture: Image.Image, about: About) -> NDArray[np.uint8]:
    own = (picture.height, picture.width)
    if about.window is not None and max(own) * about.window_scale > about.window:
        raise BrokenImage(
            "picture",
            f"{own[1]} x {own[0]} pixels are above task.window={about.window}, and the run cuts such pictures into "
            "windows, which an exported file does not: predict with the run, or make the picture smaller",
        )
    scale = 1.0
    if about.resize is not None:
        scale = about.resize / min(own)
    most = about.longest
    if about.answers == "segments":
        most = None if about.resize is None else _LONGEST * about.resize
    if most is not None:
        scale = min(scale, most / max(own))
    size = (max(1, round(own[0] * scale)), max(1, round(own[1] * scale)))
    _check(picture, size, about)
    return resized(channels_of(picture, about.channels), size, about.interpolation)


def _check(picture: Image.Image, size: tuple[int, int], about: About) -> None:
    if size[0] * size[1] > about.max_megapixels * 1e6:
        raise BrokenImage(
            "picture",
            f"{picture.width} x {picture.height} pixels would be resized to {size[1]} x {size[0]}, above "
            "data.max_megapixels",
        )

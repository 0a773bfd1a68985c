"""Resizing 8-bit pictures as PyTorch does it on a CPU with vector instructions, to the bit, in NumPy.

Pillow's own, from which it was made, has weights of more bits, and differs in a value out of two hundred by one.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

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

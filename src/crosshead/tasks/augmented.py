"""Test-time augmentation: a model asked several times, of a picture mirrored and at other sizes, and its answers put
together."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES = (0.75, 1.0, 1.25)  # of whole pictures
ZOOMS = (1.0, 1.15, 1.3)  # of pictures cut to one size: the middle of the picture, enlarged to it


def view_count(kinds: Sequence[str]) -> int:
    """How often the model is asked of one picture."""
    return (2 if "flip" in kinds else 1) * (len(SCALES) if "scales" in kinds else 1)


def pixel_factor(kinds: Sequence[str], *, whole: bool) -> float:
    """How many times the pixels of one view all views have together; ``whole`` pictures change their size."""
    scales = SCALES if "scales" in kinds and whole else (1.0,) * (len(ZOOMS) if "scales" in kinds else 1)
    return (2 if "flip" in kinds else 1) * sum(scale**2 for scale in scales)


def mean_logits(model: Callable[[Tensor], Tensor], images: Tensor, kinds: Sequence[str]) -> Tensor:
    """Logs of the mean of the views' probabilities (B, classes), which serve as logits do, for images (B, C, H, W) of
    one size. Mirrored from left to right; zoomed into the middle."""
    total: Tensor | None = None
    for zoom in ZOOMS if "scales" in kinds else (1.0,):
        seen = images if zoom == 1 else _zoomed(images, zoom)
        for view in (seen, seen.flip(-1)) if "flip" in kinds else (seen,):
            probabilities = model(view).float().softmax(-1)
            total = probabilities if total is None else total + probabilities
    assert total is not None
    return (total / view_count(kinds)).log()


def mean_maps(
    model: Callable[[Tensor], Tensor], images: Tensor, kinds: Sequence[str], multiple: int
) -> Tensor:
    """The mean of the views' class probabilities (B, classes, h, w) for images (B, C, H, W), on the grid that ``model``
    has of them padded to a ``multiple`` of pixels.

    Every view's sides are multiples, so that its grid covers it exactly, and mirrored and resized grids lie on one
    another to the pixel.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (0, -width % multiple, 0, -height % multiple))
    total: Tensor | None = None
    for scale, flipped in _views(kinds):
        sides = [max(1, round(side * scale / multiple)) * multiple for side in padded.shape[-2:]]
        view = padded
        if scale != 1:
            view = F.interpolate(padded, size=sides, mode="bilinear", antialias=True)
        logits = model(view.flip(-1) if flipped else view).float()
        logits = logits.flip(-1) if flipped else logits
        if total is None:
            step = view.shape[-1] // logits.shape[-1]
            grid = [side // step for side in padded.shape[-2:]]
            total = logits.new_zeros(*logits.shape[:2], *grid)
        total += F.interpolate(logits, size=total.shape[-2:], mode="bilinear").softmax(1)
    assert total is not None
    return total / view_count(kinds)


def found_in_views(
    detect: Callable[[Tensor, list[tuple[int, int]]], list[dict[str, Tensor]]],
    images: Tensor,
    sizes: list[tuple[int, int]],
    kinds: Sequence[str],
) -> list[list[dict[str, Tensor]]]:
    """Of each picture, what ``detect`` finds in each view, in the pixels of the picture as it is; ``images``
    (B, C, H, W), each (height, width) of ``sizes`` in its top left corner."""
    found: list[list[dict[str, Tensor]]] = [[] for _ in sizes]
    for scale, flipped in _views(kinds):
        seen, sides = _resized(images, sizes, scale)
        if flipped:
            seen = _mirrored(seen, sides)
        for said, each, side, size in zip(found, detect(seen, sides), sides, sizes, strict=True):
            said.append(_moved_back(each, side, size, flipped=flipped))
    return found


def _views(kinds: Sequence[str]) -> Iterator[tuple[float, bool]]:
    for scale in SCALES if "scales" in kinds else (1.0,):
        for flipped in (False, True) if "flip" in kinds else (False,):
            yield scale, flipped


def _zoomed(images: Tensor, zoom: float) -> Tensor:
    height, width = images.shape[-2:]
    high, wide = max(1, round(height / zoom)), max(1, round(width / zoom))
    top, left = (height - high) // 2, (width - wide) // 2
    middle = images[..., top : top + high, left : left + wide]
    return F.interpolate(middle, size=(height, width), mode="bilinear", align_corners=False)


def _resized(
    images: Tensor, sizes: list[tuple[int, int]], scale: float
) -> tuple[Tensor, list[tuple[int, int]]]:
    if scale == 1:
        return images, sizes
    sides = [(max(1, round(h * scale)), max(1, round(w * scale))) for h, w in sizes]
    tall, wide = (max(side[axis] for side in sides) for axis in (0, 1))
    batch = images.new_zeros(*images.shape[:2], -(-tall // 32) * 32, -(-wide // 32) * 32)
    for place, image, (h, w), (high, across) in zip(batch, images, sizes, sides, strict=True):
        resized = F.interpolate(image[None, :, :h, :w], size=(high, across), mode="bilinear", antialias=True)
        place[:, :high, :across] = resized[0]
    return batch, sides


def _mirrored(images: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    mirrored = images.clone()
    for place, (h, w) in zip(mirrored, sizes, strict=True):
        place[:, :h, :w] = place[:, :h, :w].flip(-1)
    return mirrored


def _moved_back(
    found: dict[str, Tensor], side: tuple[int, int], size: tuple[int, int], *, flipped: bool
) -> dict[str, Tensor]:
    boxes, changed = found["boxes"], dict[str, Any](found)
    if flipped:
        boxes = torch.stack([side[1] - boxes[:, 2], boxes[:, 1], side[1] - boxes[:, 0], boxes[:, 3]], 1)
        if "masks" in found:
            changed["masks"] = found["masks"].flip(-1)
    factors = boxes.new_tensor([size[1] / side[1], size[0] / side[0]] * 2)
    return changed | {"boxes": boxes * factors}

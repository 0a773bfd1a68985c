"""What is done to a picture together with all that lies on it, boxes, masks or a map: torchvision's transforms v2."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from crosshead.data.base import IGNORED, DatasetInfo
from crosshead.data.transforms.pipeline import has_affine
from crosshead.recipe.schema import AugmentConfig


def happens(probability: float) -> bool:
    """Draws from PyTorch's global generator, but for what never happens."""
    return probability > 0 and float(torch.rand(())) < probability


class Photometric(v2.RandomPhotometricDistort):
    """Brightness, contrast, saturation and hue, each with probability ``p`` (Liu et al., arXiv 1512.02325). The
    channels keep their order: what is red is not learned as blue."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return super().make_params(flat_inputs) | {"channel_permutation": None}


class QuarterTurn(v2.Transform):
    """With probability ``p`` turned by 90, 180 or 270 degrees, no pixel changed; by 180 alone where the shape must stay
    (``oblong``)."""

    def __init__(self, p: float, *, oblong: bool) -> None:
        super().__init__()
        self.p, self.oblong = p, oblong

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        if not happens(self.p):
            return {"turns": 0}
        return {"turns": 2 if self.oblong else 1 + int(torch.randint(3, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        turns = params["turns"]
        if turns == 0 or not isinstance(inpt, tv_tensors.TVTensor):
            return inpt
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            boxes, size = inpt.as_subclass(Tensor), tuple(inpt.canvas_size)
            for _ in range(turns):
                boxes, size = _turned(boxes, size)
            return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)  # type: ignore[call-overload]
        return tv_tensors.wrap(torch.rot90(inpt.as_subclass(Tensor), turns, (-2, -1)).contiguous(), like=inpt)


def _turned(boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Boxes (n, 4) on a picture of (height, width), by a quarter against the clock, as ``torch.rot90`` turns pixels."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([y1, size[1] - x2, y2, size[1] - x1], 1), (size[1], size[0])


def moving_steps(augment: AugmentConfig, info: DatasetInfo, *, oblong: bool = False) -> v2.Transform:
    """Flips, quarter turns, an affine map and photometric distortion, as far as they are asked for. What the map
    uncovers has the mean colour, and no class. Boxes without masks become those around the moved corners."""
    steps: list[v2.Transform] = []
    if augment.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(augment.horizontal_flip))
    if augment.vertical_flip:
        steps.append(v2.RandomVerticalFlip(augment.vertical_flip))
    if augment.quarter_turns:
        steps.append(QuarterTurn(augment.quarter_turns, oblong=oblong))
    if has_affine(augment):
        shift = augment.affine_translate
        steps.append(
            v2.RandomAffine(
                augment.affine_degrees,  # type: ignore[arg-type]  # one number serves
                translate=(shift, shift),
                scale=augment.affine_scale,
                interpolation=InterpolationMode.BILINEAR,
                fill={tv_tensors.Image: mean_colour(info), tv_tensors.Mask: 0, Classes: IGNORED, "others": 0},
            )
        )
    if augment.photometric:
        steps.append(Photometric(p=augment.photometric))
    return v2.Compose([*steps, v2.Identity()])


def mean_colour(info: DatasetInfo) -> list[int]:
    """Of the pictures in training, a value a channel of 0 ... 255; grey ones are in colour there."""
    mean: Sequence[float] = info.mean * 3 if len(info.mean) == 1 else info.mean
    return [min(255, round(255 * value)) for value in mean]


class Classes(tv_tensors.Mask):
    """A map (1, height, width) of classes, which has ``IGNORED`` where an object's mask has 0."""

"""Training pictures made of several: mosaics, pasted objects, blended pictures; and of a batch Mixup (Zhang et al.,
arXiv 1710.09412) and CutMix (Yun et al., arXiv 1905.04899).

Images are uint8 (C, height, width), targets as ``TrainingObjects`` has them; what is drawn comes from PyTorch's global
generator, which ``Mixing`` seeds.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2

from crosshead.data.decode.images import BrokenImage
from crosshead.data.random import key, seeded_globals
from crosshead.recipe.schema import AugmentConfig

Target = dict[str, Any]
View = tuple[Tensor, Target]
_LEAST_SHARE, _MOST_SHARE = 0.25, 0.75  # of a side, where the four pictures of a mosaic meet
_TRIES = 4  # of other pictures that can't be read
LEAST_SEEN = 0.15  # of a picture that is blended in: objects that show less are none to find
TAKEN = 0.5  # how likely an object, or a class, of the other picture is pasted


class Samples(Protocol):
    """Pictures with what lies on them, of which others are taken."""

    def __len__(self) -> int: ...

    def sample(self, i: int) -> Any:
        """Raises ``BrokenImage``."""


def another(others: Samples | None) -> Any:
    """One of the others, at random; None where several in a row can't be read."""
    for _ in range(_TRIES if others is not None else 0):
        try:
            assert others is not None
            return others.sample(int(torch.randint(len(others), ())))
        except BrokenImage:
            continue
    return None


def quadrants(size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Four places (top, left, height, width) that meet in a random point of a canvas of (height, width) ``size``."""
    span = _MOST_SHARE - _LEAST_SHARE
    y, x = (int(side * (_LEAST_SHARE + span * float(torch.rand(())))) for side in size)
    return [(0, 0, y, x), (0, x, y, size[1] - x), (y, 0, size[0] - y, x), (y, x, size[0] - y, size[1] - x)]


def mosaic(
    size: tuple[int, int], fill: Sequence[int], views: Sequence[Callable[[tuple[int, int]], View | None]]
) -> View:
    """Four pictures on one canvas (Bochkovskiy et al., arXiv 2004.10934). Each of ``views`` gives a picture no larger
    than the (height, width) it is asked for; None leaves its place in the colour ``fill``."""
    canvas = torch.tensor(fill, dtype=torch.uint8)[:, None, None].repeat(1, *size)
    parts: list[Target] = []
    for (top, left, height, width), view in zip(quadrants(size), views, strict=True):
        if (made := view((height, width))) is not None:
            image, target = made
            high, wide = image.shape[-2:]
            canvas[:, top : top + high, left : left + wide] = image
            parts.append(placed(target, (top, left), size))
    return canvas, joined(parts, size)


def placed(target: Target, place: tuple[int, int], size: tuple[int, int]) -> Target:
    """What lies on a picture, moved with it to ``place`` (top, left) of a canvas of ``size`` (height, width)."""
    top, left = place
    out: Target = {"boxes": target["boxes"] + torch.tensor([left, top] * 2), "labels": target["labels"]}
    if "masks" in target:
        high, wide = target["masks"].shape[-2:]
        beside = (left, size[1] - left - wide, top, size[0] - top - high)
        out["masks"] = functional.pad(target["masks"].as_subclass(Tensor), beside)
    return out


def joined(parts: Sequence[Target], size: tuple[int, int]) -> Target:
    """The objects of all ``parts``, on one canvas of ``size``, as tv_tensors."""
    together = {key: torch.cat([part[key].as_subclass(Tensor) for part in parts]) for key in parts[0]}
    boxes = tv_tensors.BoundingBoxes(together["boxes"], format="XYXY", canvas_size=size)  # type: ignore[call-overload]
    masks = {"masks": tv_tensors.Mask(together["masks"])} if "masks" in together else {}
    return {"boxes": boxes, "labels": together["labels"]} | masks


def paste_objects(view: View, other: View) -> View:
    """Some of the objects of ``other`` over the picture, with what they cover gone from its masks (Ghiasi et al., arXiv
    2012.07177, without blending their borders). Objects of which nothing is left have empty masks."""
    (image, target), (pixels, theirs) = view, other
    size = tuple(image.shape[-2:])
    chosen = torch.rand(len(theirs["labels"])) < TAKEN
    height, width = (min(pair) for pair in zip(size, pixels.shape[-2:], strict=True))
    masks = theirs["masks"].as_subclass(Tensor)[chosen][:, :height, :width]
    if not masks.any():
        return view
    over = masks.any(0).bool()
    image = image.as_subclass(Tensor).clone()
    image[:, :height, :width] = torch.where(
        over, pixels.as_subclass(Tensor)[:, :height, :width], image[:, :height, :width]
    )
    own = target["masks"].as_subclass(Tensor).clone()
    own[:, :height, :width] *= ~over
    pasted = {"boxes": theirs["boxes"][chosen], "labels": theirs["labels"][chosen], "masks": masks}
    return image, joined([target | {"masks": own}, placed(pasted, (0, 0), size)], size)  # type: ignore[arg-type]


def paste_classes(
    view: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], ignored: int
) -> tuple[Tensor, Tensor]:
    """Pixels and classes (height, width) of some of the classes of ``other`` over a picture and its map of the same
    size (Olsson et al., arXiv 2007.07936)."""
    (image, numbers), (pixels, theirs) = view, other
    there = theirs.unique()
    there = there[there != ignored]
    chosen = there[torch.rand(len(there)) < TAKEN]
    over = torch.isin(theirs, chosen)
    return torch.where(over, pixels, image), torch.where(over, theirs, numbers)


def blend(view: View, other: View, fill: Sequence[int], alpha: float) -> View:
    """Both pictures, the first weighing a share drawn from Beta(alpha, alpha), with the objects of both, on a canvas
    that holds either (Zhang et al., arXiv 1902.04103). Of one that weighs less than ``LEAST_SEEN`` the objects are left
    out: nobody could see them."""
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    size = tuple(max(pair) for pair in zip(view[0].shape[-2:], other[0].shape[-2:], strict=True))
    canvases = []
    for image, _ in (view, other):
        canvas = torch.tensor(fill, dtype=torch.float32)[:, None, None].repeat(1, *size)
        canvas[:, : image.shape[-2], : image.shape[-1]] = image.as_subclass(Tensor)
        canvases.append(canvas)
    mixed = (share * canvases[0] + (1 - share) * canvases[1]).round().to(torch.uint8)
    whole = (size[0], size[1])
    seen = [target for (_, target), weight in ((view, share), (other, 1 - share)) if weight >= LEAST_SEEN]
    return mixed, joined([placed(target, (0, 0), whole) for target in seen], whole)


class Mixing:
    """Mixes each batch with its own neighbours by torchvision's transforms; any batch size, odd ones too.

    Of every batch one kind of mixing is chosen: CutMix with ``mixup_switch_prob`` where both are on; none at
    all with 1 − ``mixup_prob``. The draws are keyed on (seed, epoch, position in the epoch's order).
    """

    def __init__(self, augment: AugmentConfig, classes: int) -> None:
        self.probability = augment.mixup_prob if augment.mixup or augment.cutmix else 0.0
        self.cutmix_share = (
            augment.mixup_switch_prob if augment.mixup and augment.cutmix else float(not augment.mixup)
        )
        self.mixup = v2.MixUp(alpha=augment.mixup, num_classes=classes) if augment.mixup else None
        self.cutmix = v2.CutMix(alpha=augment.cutmix, num_classes=classes) if augment.cutmix else None

    def __call__(
        self, images: Tensor, targets: Tensor, *, seed: int, epoch: int, position: int
    ) -> tuple[Tensor, Tensor]:
        """Mixed ``images`` (B, C, H, W) and ``targets`` (B, classes); unmixed ones stay indices, (B,)."""
        if self.probability == 0 or len(images) == 0:
            return images, targets
        with seeded_globals() as seed_all:
            seed_all(key("mixing", seed, epoch, position))
            mix, cut = torch.rand(2, dtype=torch.float64).tolist()
            if mix >= self.probability:
                return images, targets
            chosen = self.cutmix if cut < self.cutmix_share else self.mixup
            assert chosen is not None
            return chosen(images, targets)

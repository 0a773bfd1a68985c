"""Small backbones and targets for the tests of detectors and segmenters."""

import timm
import torch

from crosshead.models.pyramid import Maps

SIZES = [(70, 90), (64, 50)]
# Three stages at strides 4, 8 and 16, the last two interactive.
SMALL = dict(depths=(1, 1, 1), dims=(16, 24, 32), num_heads=(2, 3, 4), attention_stages=(1, 2), landmarks=3)


def small_maps(**options) -> Maps:
    torch.manual_seed(0)
    return Maps(timm.create_model("ivit_tiny", num_classes=0, **(SMALL | options)))


def images(*size, batch=2):
    return torch.randn(batch, 3, *(size or (70, 90)), generator=torch.Generator().manual_seed(1))


def targets(*, empty=False):
    """Of two pictures of ``SIZES``; the second has no objects, or neither has."""
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    boxes = torch.tensor([[5.0, 8, 37, 44], [40, 20, 80, 60]])
    masks = torch.zeros(2, 70, 90)
    masks[0, 8:44, 5:37] = masks[1, 20:60, 40:80] = 1
    some = {"boxes": boxes, "labels": torch.tensor([2, 0]), "masks": masks}
    first = nothing | {"masks": torch.zeros(0, 70, 90)} if empty else some
    return [first, nothing | {"masks": torch.zeros(0, 64, 50)}]

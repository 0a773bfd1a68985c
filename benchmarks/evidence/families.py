"""The MOHSA paper's three families at its head widths, made small: ViT (heads of 16), CaiT (48) and Swin (32).

Registered Tiny models with fewer and narrower blocks, for Fashion-MNIST's 28 x 28 pixels. Linear layers start from
Xavier's uniform distribution and positions from N(0, .3), as in ``thin_heads``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
from torch import nn

import crosshead  # noqa: F401 # registers the models
from crosshead.train.loop.model import count_parameters

from . import thin_heads

HIDDEN = 2.0  # the MLP's width over the block's
PLAIN, EQUAL = "plain", "plain (equal parameters)"


@dataclass(frozen=True)
class Small:
    """A family's model and how it is trained.

    ``time_steps``: of plain heads, in the time of ``steps`` overlapped ones by ``index``; timed in turn, before any
    of the runs that are kept.
    """

    model: str
    args: Mapping[str, Any]
    lr: float
    steps: int
    time_steps: int


FAMILIES = {
    "vit": Small(
        "vit_tiny_patch16_224", dict(patch_size=7, embed_dim=64, depth=6, num_heads=4), 3e-3, 600, 786
    ),
    "cait": Small(
        "cait_xxs12_224",
        dict(patch_size=7, embed_dim=144, depth=3, depth_token_only=1, num_heads=3),
        1e-3,
        400,
        480,
    ),
    "swin": Small(
        "swin_tiny_patch4_window7_224",
        dict(patch_size=4, window_size=4, embed_dim=64, depths=(2, 2), num_heads=(2, 4)),
        3e-3,
        400,
        444,
    ),
}


def started(family: str, kind: str) -> nn.Module:
    """Heads of a kind: ``plain``, ``plain (equal parameters)``, or an overlap schedule."""
    if kind == EQUAL:
        return _drawn(family, PLAIN, equal_hidden(family))
    return _drawn(family, kind, HIDDEN)


@cache
def equal_hidden(family: str) -> float:
    """The MLP's width over the block's, with which plain heads have the parameters of heads overlapped by ``index``."""
    wanted = count_parameters(_built(family, "index", HIDDEN))
    least, most = HIDDEN, 2 * HIDDEN
    for _ in range(12):
        middle = (least + most) / 2
        fewer = count_parameters(_built(family, PLAIN, middle)) < wanted
        least, most = (middle, most) if fewer else (least, middle)
    return most


def _built(family: str, kind: str, hidden: float) -> nn.Module:
    small = FAMILIES[family]
    args = {"img_size": 28, "in_chans": 1, "num_classes": 10, "mlp_ratio": hidden, **small.args}
    if kind == PLAIN:
        return timm.create_model(f"plain_{small.model}", **args)
    return timm.create_model(f"mohsa_{small.model}", overlap=kind, **args)


def _drawn(family: str, kind: str, hidden: float) -> nn.Module:
    model = _built(family, kind, hidden)
    thin_heads.start(model)
    return model

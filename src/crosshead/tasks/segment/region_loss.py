"""Losses of whole segments, beside the cross entropy of pixels: Dice, Tversky and Lovász.

smp's. Each picture has its own loss, and a batch the sum: then accumulated batches and several processes come to what
one large batch would.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from crosshead.data.base import IGNORED
from crosshead.models.extras import need

Loss = Callable[[Tensor, Tensor], Tensor]


def region_loss(name: str, tversky_alpha: float) -> Loss:
    """Of logits (B, classes, H, W) float32 and targets (B, H, W), the sum over the pictures that have a pixel with a
    class, each a mean over classes; of one that the picture has not, Dice and Tversky count 0, and Lovász nothing:

    - "dice": 1 - Dice coefficient (Milletari et al., arXiv 1606.04797);
    - "tversky": the same with false positives weighing ``tversky_alpha`` and missed pixels the rest of 1 (Salehi et
      al., arXiv 1706.05721);
    - "lovasz": Lovász-softmax, the convex extension of 1 - IoU (Berman et al., arXiv 1705.08790).

    Raises:
        ModuleNotFoundError: segmentation-models-pytorch is not installed.
    """
    losses = need("segmentation_models_pytorch.losses")
    made = {
        "dice": lambda: losses.DiceLoss("multiclass", ignore_index=IGNORED),
        "tversky": lambda: losses.TverskyLoss(
            "multiclass", ignore_index=IGNORED, alpha=tversky_alpha, beta=1 - tversky_alpha
        ),
        "lovasz": lambda: losses.LovaszLoss("multiclass", ignore_index=IGNORED, from_logits=True),
    }
    return partial(_over_pictures, made[name]())


def known_pictures(targets: Tensor) -> int:
    """How many of (B, H, W) have a pixel with a class."""
    return int((targets != IGNORED).flatten(1).any(1).sum())


def _over_pictures(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    logits, targets = logits.float(), targets.long()
    parts = [
        loss(logits[i : i + 1], targets[i : i + 1])
        for i in range(len(logits))
        if (targets[i] != IGNORED).any()
    ]
    return torch.stack(parts).sum() if parts else logits.sum() * 0.0

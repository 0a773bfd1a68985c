"""Losses beside cross entropy: focal loss and weights of classes; of segments as a whole Dice, Tversky and Lovász,
which are smp's.

Each picture has its own loss, and a batch the sum: then accumulated batches and several processes come to what one
large batch would.
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crosshead.data.base import IGNORED
from crosshead.libraries import need


def focal_loss(
    logits: Tensor, targets: Tensor, *, gamma: float, smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """Focal loss (Lin et al., arXiv 1708.02002) of each image, (B,): cross entropy whose terms are multiplied by
    (1 - p)^gamma, so that classes that are well known weigh little.

    ``logits`` (B, C) float32; ``targets`` (B,) indices or (B, C) probabilities, which ``smoothing`` moves towards 1/C;
    ``weight`` (C,) of the classes.
    """
    classes = logits.shape[-1]
    wanted = targets if targets.ndim > 1 else F.one_hot(targets, classes).to(logits)
    wanted = wanted * (1 - smoothing) + smoothing / classes
    log_p = logits.log_softmax(-1)
    terms = -wanted * (1 - log_p.exp()).pow(gamma) * log_p
    return (terms if weight is None else terms * weight).sum(-1)


def class_weights(
    wanted: str | Sequence[float] | Mapping[str, float], targets: Sequence[int], names: Sequence[str]
) -> Tensor:
    """Weights (classes,) float32 whose mean over the training images is 1, so that the learning rate means the same.

    "balanced" weighs each class by the inverse of its number of images, as scikit-learn does.

    Raises:
        ValueError: there are not as many weights as classes, or no class of that name.
    """
    classes = len(names)
    if isinstance(wanted, Mapping):
        if unknown := sorted(wanted.keys() - set(names)):
            near = get_close_matches(unknown[0], names, n=1, cutoff=0.0)
            raise ValueError(f"task.class_weights: no class {unknown[0]!r}; the nearest is {near[0]!r}")
        wanted = [wanted.get(name, 1.0) for name in names]
    counts = np.bincount(np.asarray(targets, dtype=np.int64), minlength=classes).astype(np.float64)
    if wanted == "balanced":
        weights = np.divide(1.0, counts, out=np.zeros(classes), where=counts > 0)
    else:
        weights = np.asarray(wanted, dtype=np.float64)
        if len(weights) != classes:
            raise ValueError(
                f"task.class_weights has {len(weights)} numbers and the data {classes} classes: give one a class, "
                "in the order of their names, or balanced"
            )
    return torch.from_numpy(weights * counts.sum() / (counts * weights).sum()).float()


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

"""The losses of classification, summed over images."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


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

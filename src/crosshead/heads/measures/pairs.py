"""What a matrix of similarities says of a layer's heads as a whole."""

import torch
from torch import Tensor


def effective_heads(similarity: Tensor) -> float:
    """How many heads there are in effect (Vendi score, arXiv 2210.02410): 1 where all are alike, h where none are.

    The exponential of the entropy of the eigenvalues of ``similarity`` (h, h) / h, whose diagonal is 1.
    """
    values = torch.linalg.eigvalsh(similarity.double() / len(similarity)).clamp(min=0)
    values = values / values.sum()
    return torch.special.entr(values).sum().exp().item()


def mean_off_diagonal(similarity: Tensor) -> float:
    """The mean over pairs of two different heads; NaN with one head."""
    heads = len(similarity)
    return (
        ((similarity.sum() - similarity.trace()) / (heads * (heads - 1))).item()
        if heads > 1
        else float("nan")
    )


def neighbour_excess(similarity: Tensor) -> float:
    """What neighbours (|g - h| = 1) share beyond other pairs; NaN below three heads."""
    heads = len(similarity)
    apart = (torch.arange(heads)[:, None] - torch.arange(heads)).abs()
    if heads < 3:
        return float("nan")
    return (similarity[apart == 1].mean() - similarity[apart > 1].mean()).item()

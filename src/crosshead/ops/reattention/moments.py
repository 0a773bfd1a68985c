"""Mean and variance of the mixed maps without the mixed maps.

With C_i = P_i - 1/N, whose mean is 0 but for dropout, and sums over the n entries of all images, rows and columns::

    mean[g]     = sum_i Θ[g, i] (1/N + sum C_i / n) + b[g]
    variance[g] = sum_ij Θ[g, i] Θ[g, j] (sum C_i C_j / n - (sum C_i / n) (sum C_j / n))

so that the h x h matrix of products is all that has to be known of the maps. Taking 1/N off first keeps the variance of
nearly uniform maps from drowning in the square of their mean.
"""

import torch
from torch import Tensor

from ..chunks import drop


def centred_maps(
    q: Tensor,
    k: Tensor,
    attn_bias: Tensor | None,
    generator: torch.Generator | None,
    *,
    scale: float,
    dropout_p: float,
) -> Tensor:
    """C (b, h, t, N) of the queries q (b, h, t, d) among all keys k (b, h, N, d)."""
    # Differences of a map from its mean are small beside it: float32 or better.
    q, k = precise(q), precise(k)
    logits = (q * scale) @ k.mT
    if attn_bias is not None:
        logits = logits + precise(attn_bias)
    return drop(logits.softmax(dim=-1), dropout_p, generator) - 1 / k.shape[2]


def sums(maps: Tensor) -> Tensor:
    """(h, h + 1) of C (b, h, t, N): the sums of C_i C_j, and that of C_i."""
    maps = maps.flatten(2)
    return torch.cat([(maps @ maps.mT).sum(0), maps.sum((0, 2)).unsqueeze(1)], dim=1)


def precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def deviation_and_variance(sums: Tensor, entries: int, mix: Tensor) -> tuple[Tensor, Tensor]:
    """(h,) each of the mixed C, from their sums over ``entries`` entries: their mean, and their (biased) variance."""
    products, means = sums[:, :-1] / entries, sums[:, -1] / entries
    covariance = products - means.unsqueeze(1) * means
    return mix @ means, ((mix @ covariance) * mix).sum(1)

"""Re-attention, written as its equations (DeepViT, arXiv 2103.11886, equation 3)::

    P_i = softmax(Q_i K_i^T s)
    M_g = sum_i Θ[g, i] P_i + b[g]
    A_g = γ[g] (M_g - mean[g]) / sqrt(variance[g] + ε) + β[g]     mean and variance of M_g over images, rows, columns
    O_g = A_g V_g

In training mean and variance are those of the batch, in evaluation running ones are given: batch norm, the heads being
its channels. It runs in the precision of its input on any device, and is the oracle of the fast path.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..naive import rows_of
from .arguments import check_reattention


def naive_reattention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mix: Tensor,
    mix_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    *,
    statistics: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-5,
    attn_bias: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The equations above; arguments and result as ``reattention``."""
    weights, used = _weights(
        q,
        k,
        v,
        mix,
        mix_bias,
        norm_weight,
        norm_bias,
        statistics,
        eps,
        attn_bias,
        dropout_p,
        scale,
    )
    return weights @ v, used


def reattention_weights(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mix: Tensor,
    mix_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    *,
    statistics: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-5,
    attn_bias: Tensor | None = None,
    scale: float | None = None,
    queries: Sequence[int] | None = None,
) -> Tensor:
    """The weights A that meet V, for analysis: of either sign, and rows do not sum to one.

    (B, h, len(queries), N), all rows unless ``queries`` names some, for which ``statistics`` must be given: those of a
    few rows are not those of the map. Otherwise as ``reattention``.
    """
    if queries is not None:
        if statistics is None:
            raise ValueError(
                "the rows of some queries need the statistics of the whole maps; pass statistics"
            )
        q = rows_of(q, queries)
        attn_bias = None if attn_bias is None else rows_of(attn_bias, queries)
    return _weights(q, k, v, mix, mix_bias, norm_weight, norm_bias, statistics, eps, attn_bias, 0.0, scale)[0]


def _weights(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mix: Tensor,
    mix_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    statistics: tuple[Tensor, Tensor] | None,
    eps: float,
    attn_bias: Tensor | None,
    dropout_p: float,
    scale: float | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    check_reattention(q, k, v, mix, mix_bias, norm_weight, norm_bias, statistics, attn_bias, dropout_p)
    logits = (q @ k.transpose(-2, -1)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if attn_bias is not None:
        logits = logits + attn_bias
    maps = torch.dropout(logits.softmax(dim=-1), dropout_p, train=True)
    mixed = torch.einsum("gi,binm->bgnm", mix, maps)
    if mix_bias is not None:
        mixed = mixed + mix_bias[:, None, None]
    if statistics is None:
        mean = mixed.mean(dim=(0, 2, 3))
        variance = (mixed - mean[:, None, None]).square().mean(dim=(0, 2, 3))
    else:
        mean, variance = statistics
    weights = (mixed - mean[:, None, None]) / (variance + eps).sqrt()[:, None, None]
    if norm_weight is not None:
        weights = weights * norm_weight[:, None, None]
    if norm_bias is not None:
        weights = weights + norm_bias[:, None, None]
    return weights, (mean, variance)

"""Re-attention as the library uses it: norm and mixing as one small matrix, the attention in chunks.

Mean and variance of the mixed maps come without the mixed maps. With C_i = P_i - 1/N, whose mean is 0 but for dropout,
and sums over the n entries of all images, rows and columns::

    mean[g]     = sum_i Θ[g, i] (1/N + sum C_i / n) + b[g]
    variance[g] = sum_ij Θ[g, i] Θ[g, j] (sum C_i C_j / n - (sum C_i / n) (sum C_j / n))

so that the h x h matrix of products is all that has to be known of the maps. Taking 1/N off first keeps the variance of
nearly uniform maps from drowning in the square of their mean.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..chunks import IMAGES, SHARED, Axes, in_chunks, mask_axes, must_be_plain
from ..dropout import Draw, drop, new_seed
from ..half_products import precise, precise_product
from ..modes import autocast_dtype, traceable, without_autocast
from .arguments import check_reattention


class Statistics(NamedTuple):
    """Mean and (biased) variance of each mixed map, (h,) each."""

    mean: Tensor
    variance: Tensor


@traceable
def reattention(
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
) -> tuple[Tensor, Statistics]:
    """Attention whose maps are mixed over the heads and normalised (DeepViT, arXiv 2103.11886, equation 3).

    Memory is linear in N. The equations are in ``naive.py``.

    Args:
        q, k, v: (B, h, N, d), any strides.
        mix: Θ (h, h), rows mixed maps. mix_bias: (h,) or None; the statistics of the batch cancel it.
        norm_weight, norm_bias: of the norm, (h,) each, or None.
        statistics: mean and variance (h,) to normalise with, as batch norm does in evaluation; None takes those of
            the batch, through which gradients flow.
        eps: of the norm.
        attn_bias: finite, added to the logits, broadcastable to (B, h, N, N); gets a gradient. Masks are refused.
        dropout_p: the share of the maps that is dropped, before they are mixed. Give 0 in evaluation.
        scale: factor of the logits; d^(-1/2) by default.

    Returns:
        (B, h, N, d) in the dtype of q (under autocast in autocast's), and the statistics that were used.

    Raises:
        ValueError: for sizes that do not fit, a boolean mask, or statistics of a single entry.
    """
    shape = check_reattention(
        q, k, v, mix, mix_bias, norm_weight, norm_bias, statistics, attn_bias, dropout_p
    )
    scale = q.shape[3] ** -0.5 if scale is None else scale
    out_dtype = q.dtype if q.dtype == torch.float64 else (autocast_dtype(q) or q.dtype)
    if attn_bias is not None:
        attn_bias = attn_bias[(None,) * (4 - attn_bias.dim())]
    with without_autocast(q):
        maps = _Maps(q, k, attn_bias, shape, scale, dropout_p)
        mix, mix_bias = precise(mix), None if mix_bias is None else precise(mix_bias)
        # What uniform maps, of 1/N everywhere, are mixed to; C is what the maps are beyond that.
        uniform = mix.sum(1) / shape[3]
        if mix_bias is not None:
            uniform = uniform + mix_bias
        if statistics is None:
            # Without images there is nothing to divide by, and nothing that would use it.
            entries = max(1, shape[0] * shape[2] * shape[3])
            deviation, variance = _deviation_and_variance(maps.sums(), entries, mix)
            mean = uniform + deviation
        else:
            mean, variance = (precise(x) for x in statistics)
            deviation = mean - uniform
        gain = torch.rsqrt(variance + eps)
        if norm_weight is not None:
            gain = gain * norm_weight
        # A_g = gain[g] (sum_i Θ[g, i] C_i - deviation[g]) + β[g]
        rest = -gain * deviation
        if mix_bias is not None:
            # The batch's own mean cancels it; its gradient is zero then, and not missing.
            rest = rest + 0.0 * mix_bias
        if norm_bias is not None:
            rest = rest + norm_bias
        out = maps.attend(v, gain.unsqueeze(1) * mix) + rest.view(-1, 1, 1) * precise(v).sum(2, keepdim=True)
    return out.to(out_dtype), Statistics(mean, variance)


class _Maps:
    """The maps C, less 1/N: in chunks, each time anew, or whole and once where PyTorch has to see through."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        attn_bias: Tensor | None,
        shape: tuple[int, int, int, int],
        scale: float,
        dropout_p: float,
    ) -> None:
        self._operands = (q, k, attn_bias)
        self._axes = (Axes(0, 2), IMAGES, mask_axes(attn_bias))
        self._shape = shape
        self._form = partial(_centred_maps, scale=scale, dropout_p=dropout_p)
        self._seed = new_seed(
            dropout_p, q.device
        )  # one for both: the statistics are those of the maps that attend
        given = [x for x in self._operands if x is not None]
        self._whole = self._form(*self._operands, None) if must_be_plain(given) else None

    def sums(self) -> Tensor:
        if self._whole is not None:
            return _sums(self._whole)
        return in_chunks(self._sums, self._operands, self._axes, SHARED, self._shape, self._seed)

    def attend(self, v: Tensor, mixing: Tensor) -> Tensor:
        """The mixed maps times V (B, h, N, d)."""
        if self._whole is not None:
            return _mix_and_attend(self._whole, v, mixing)
        operands, axes = (*self._operands, v, mixing), (*self._axes, IMAGES, SHARED)
        return in_chunks(self._attend, operands, axes, Axes(0, 2), self._shape, self._seed)

    def _sums(self, q: Tensor, k: Tensor, attn_bias: Tensor | None, draw: Draw | None) -> Tensor:
        return _sums(self._form(q, k, attn_bias, draw))

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        attn_bias: Tensor | None,
        v: Tensor,
        mixing: Tensor,
        draw: Draw | None,
    ) -> Tensor:
        return _mix_and_attend(self._form(q, k, attn_bias, draw), v, mixing)


def _mix_and_attend(maps: Tensor, v: Tensor, mixing: Tensor) -> Tensor:
    # One (h, h) by (h, t·N) product an image: ``matmul`` would turn the maps around instead.
    mixed = torch.bmm(mixing.expand(maps.shape[0], -1, -1), maps.flatten(2)).view(maps.shape)
    return precise_product(mixed, v)


def _centred_maps(
    q: Tensor,
    k: Tensor,
    attn_bias: Tensor | None,
    draw: Draw | None,
    *,
    scale: float,
    dropout_p: float,
) -> Tensor:
    """C (b, h, t, N) of the queries q (b, h, t, d) among all keys k (b, h, N, d)."""
    # Differences of a map from its mean are small beside it: float32 or better.
    logits = precise_product(q, k.mT, scale)
    if attn_bias is not None:
        logits = logits + precise(attn_bias)
    return drop(logits.softmax(dim=-1), dropout_p, draw) - 1 / k.shape[2]


def _sums(maps: Tensor) -> Tensor:
    """(h, h + 1) of C (b, h, t, N): the sums of C_i C_j, and that of C_i."""
    maps = maps.flatten(2)
    return torch.cat([(maps @ maps.mT).sum(0), maps.sum((0, 2)).unsqueeze(1)], dim=1)


def _deviation_and_variance(sums: Tensor, entries: int, mix: Tensor) -> tuple[Tensor, Tensor]:
    """(h,) each of the mixed C, from their sums over ``entries`` entries: their mean, and their (biased) variance."""
    products, means = sums[:, :-1] / entries, sums[:, -1] / entries
    covariance = products - means.unsqueeze(1) * means
    return mix @ means, ((mix @ covariance) * mix).sum(1)

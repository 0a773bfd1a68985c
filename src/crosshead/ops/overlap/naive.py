"""Overlapped-head attention, written as its equations (MOHSA, arXiv 2410.14874, section 3).

With h heads of width d and an overlap of o channels a side::

    X'_i = [ last o of X_{i-1} | X_i | first o of X_{i+1} ]        for X in {Q, K, V}, zeros beyond the end heads
    A_i  = softmax(Q'_i K'_i^T s + mask)                           s = d^(-1/2), the width before overlapping
    O    = [ A_1 V'_1 | ... | A_h V'_h ]

It runs in the precision of its input on any device, and is the oracle of the fast path.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import (
    check_bias,
    check_dropout,
    check_gain,
    check_heads,
    check_mask,
    check_overlap,
    check_self_attention,
)
from ..modes import traceable
from ..naive import logits_of, masked, softmax_or_zero


def naive_overlap(heads: Tensor, overlap: int) -> Tensor:
    """Every head between the ends of its neighbours: (B, h, N, d) -> (B, h, N, d + 2·overlap)."""
    check_overlap(overlap, heads.shape[-1])
    if overlap == 0:
        return heads
    num_heads, head_dim = heads.shape[1], heads.shape[3]
    nothing = torch.zeros_like(heads[:, 0, :, :overlap])
    windows = []
    for i in range(num_heads):
        before = heads[:, i - 1, :, head_dim - overlap :] if i > 0 else nothing
        after = heads[:, i + 1, :, :overlap] if i < num_heads - 1 else nothing
        windows.append(torch.cat([before, heads[:, i], after], dim=-1))
    return torch.stack(windows, dim=1)


def naive_overlapped_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    overlap: int,
    *,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    dropout_p: float = 0.0,
    borrow_gain: Tensor | None = None,
) -> Tensor:
    """The equations above; arguments and result as ``overlapped_attention``."""
    check_self_attention(q, k, v)
    weights = overlapped_attention_weights(
        q,
        k,
        v,
        overlap,
        attn_mask=attn_mask,
        attn_bias=attn_bias,
        is_causal=is_causal,
        scale=scale,
        borrow_gain=borrow_gain,
    )
    return torch.dropout(weights, check_dropout(dropout_p), train=True) @ naive_overlap(v, overlap)


@traceable
def overlapped_attention_weights(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    overlap: int,
    *,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    borrow_gain: Tensor | None = None,
    queries: Sequence[int] | None = None,
) -> Tensor:
    """The attention weights A themselves, for analysis.

    (B, h, len(queries), N), all rows unless ``queries`` names some. Otherwise as ``overlapped_attention``.
    """
    shape = check_heads(q, k, v)
    check_mask(attn_mask, shape)
    check_bias(attn_bias, shape)
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask and is_causal exclude each other; put the causal part into attn_mask")
    head_dim = q.shape[-1]
    q, k = naive_overlap(q, overlap), naive_overlap(k, overlap)
    if borrow_gain is not None:
        q = q * spread_gain(borrow_gain, q.shape[1], head_dim, overlap)
    scale = head_dim**-0.5 if scale is None else scale
    logits = logits_of(q, k, attn_bias=attn_bias, scale=scale, queries=queries)
    return softmax_or_zero(masked(logits, attn_mask=attn_mask, is_causal=is_causal, queries=queries))


def spread_gain(borrow_gain: Tensor, num_heads: int, head_dim: int, overlap: int) -> Tensor:
    """The factors of Q' (h, 1, d + 2·overlap): 1 for a head's own channels, ``borrow_gain`` (h, 2·overlap) around."""
    check_gain(borrow_gain, num_heads, overlap)
    own = borrow_gain.new_ones(num_heads, head_dim)
    return torch.cat([borrow_gain[:, :overlap], own, borrow_gain[:, overlap:]], dim=-1).unsqueeze(1)

"""Talking-heads attention with overlapped heads, written as its equations.

Talking heads (Shazeer et al., arXiv 2003.02436) as CaiT has them (Touvron et al., arXiv 2103.17239), on the heads of
MOHSA (arXiv 2410.14874)::

    L_i = Q'_i K'_i^T s + B_i                          X' overlapped as in ``crosshead.ops.overlap``, B a bias
    P_g = softmax(sum_i W_pre[g, i] L_i + b_pre[g] + M)               M a mask, alike for all heads
    A_g = sum_i W_post[g, i] P_i + b_post[g]           0 where M closes
    O   = [ A_1 V'_1 | ... | A_h V'_h ]

It runs in the precision of its input on any device, and is the oracle of the fast paths.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_bias, check_dropout, check_heads, check_mask, check_mixing, check_self_attention
from ..modes import traceable
from ..naive import logits_of, masked, softmax_or_zero
from ..overlap.naive import naive_overlap, spread_gain


def naive_talking_heads_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    pre_bias: Tensor | None,
    post_weight: Tensor,
    post_bias: Tensor | None,
    *,
    overlap: int = 0,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    dropout_p: float = 0.0,
    borrow_gain: Tensor | None = None,
) -> Tensor:
    """The equations above; arguments and result as ``talking_heads_attention``."""
    check_self_attention(q, k, v)
    weights = talking_heads_weights(
        q,
        k,
        v,
        pre_weight,
        pre_bias,
        post_weight,
        post_bias,
        overlap=overlap,
        attn_mask=attn_mask,
        attn_bias=attn_bias,
        is_causal=is_causal,
        scale=scale,
        borrow_gain=borrow_gain,
    )
    return torch.dropout(weights, check_dropout(dropout_p), train=True) @ naive_overlap(v, overlap)


@traceable
def talking_heads_weights(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    pre_bias: Tensor | None,
    post_weight: Tensor,
    post_bias: Tensor | None,
    *,
    overlap: int = 0,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    borrow_gain: Tensor | None = None,
    queries: Sequence[int] | None = None,
) -> Tensor:
    """The weights A that meet V, for analysis: their rows need not sum to one, nor be positive.

    (B, h, len(queries), N), all rows unless ``queries`` names some. Otherwise as ``talking_heads_attention``.
    """
    batch, num_heads, tokens, keys = shape = check_heads(q, k, v)
    check_mixing(num_heads, pre_weight, pre_bias, post_weight, post_bias)
    check_mask(attn_mask, (batch, 1, tokens, keys))
    check_bias(attn_bias, shape)
    head_dim = q.shape[-1]
    q, k = naive_overlap(q, overlap), naive_overlap(k, overlap)
    if borrow_gain is not None:
        q = q * spread_gain(borrow_gain, num_heads, head_dim, overlap)
    scale = head_dim**-0.5 if scale is None else scale
    logits = logits_of(q, k, attn_bias=attn_bias, scale=scale, queries=queries)
    mixed = masked(
        _mix(pre_weight, logits, pre_bias), attn_mask=attn_mask, is_causal=is_causal, queries=queries
    )
    weights = _mix(post_weight, softmax_or_zero(mixed), post_bias)
    return weights.masked_fill(mixed == -torch.inf, 0.0)


def _mix(weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer over the head axis of x (B, h, N, N), at each pair of tokens."""
    mixed = (weight.to(x.dtype) @ x.flatten(2)).view(x.shape)
    return mixed if bias is None else mixed + bias.to(x.dtype)[:, None, None]

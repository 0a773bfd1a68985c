"""Talking-heads attention with overlapped heads, written as its equations.

Talking heads (Shazeer et al., arXiv 2003.02436) as CaiT has them (Touvron et al., arXiv 2103.17239), on the heads of
MOHSA (arXiv 2410.14874)::

    L_i = Q'_i K'_i^T s                                X' overlapped as in ``crosshead.ops.overlap``
    P_g = softmax(sum_i W_pre[g, i] L_i + b_pre[g])
    A_g = sum_i W_post[g, i] P_i + b_post[g]
    O   = [ A_1 V'_1 | ... | A_h V'_h ]

It runs in the precision of its input on any device, and is the oracle of the fast paths.
"""

import torch
from torch import Tensor

from ..checks import check_dropout, check_packed
from ..overlap.naive import naive_overlap, spread_gain
from ..tracing import traceable
from .arguments import check_mixing


def naive_talking_heads_attention(
    qkv: Tensor,
    pre_weight: Tensor,
    pre_bias: Tensor | None,
    post_weight: Tensor,
    post_bias: Tensor | None,
    *,
    overlap: int = 0,
    dropout_p: float = 0.0,
    scale: float | None = None,
    borrow_gain: Tensor | None = None,
) -> Tensor:
    """The equations above; arguments and result as ``talking_heads_attention``."""
    weights = talking_heads_weights(
        qkv,
        pre_weight,
        pre_bias,
        post_weight,
        post_bias,
        overlap=overlap,
        scale=scale,
        borrow_gain=borrow_gain,
    )
    weights = torch.dropout(weights, check_dropout(dropout_p), train=True)
    v = naive_overlap(qkv[:, :, 2], overlap).transpose(1, 2)
    return (weights @ v).transpose(1, 2).flatten(2)


@traceable
def talking_heads_weights(
    qkv: Tensor,
    pre_weight: Tensor,
    pre_bias: Tensor | None,
    post_weight: Tensor,
    post_bias: Tensor | None,
    *,
    overlap: int = 0,
    scale: float | None = None,
    borrow_gain: Tensor | None = None,
) -> Tensor:
    """The weights A (B, h, N, N) that meet V, for analysis: their rows need not sum to one, nor be positive."""
    _, _, num_heads, head_dim = check_packed(qkv)
    check_mixing(num_heads, pre_weight, pre_bias, post_weight, post_bias)
    q, k = (naive_overlap(x, overlap).transpose(1, 2) for x in qkv[:, :, :2].unbind(2))
    if borrow_gain is not None:
        q = q * spread_gain(borrow_gain, num_heads, head_dim, overlap)
    # Q is scaled, not the logits: in half precision unscaled ones overflow.
    logits = (q * (head_dim**-0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    return _mix(post_weight, _mix(pre_weight, logits, pre_bias).softmax(dim=-1), post_bias)


def _mix(weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer over the head axis of x (B, h, N, N), at each pair of tokens."""
    mixed = torch.einsum("gi,binm->bgnm", weight, x)
    return mixed if bias is None else mixed + bias[:, None, None]

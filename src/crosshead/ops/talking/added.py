"""Talking heads whose logits have a bias or a mask, in PyTorch's own operators.

A bias belongs to a head, so it is part of the logits that are mixed; a mask parts tokens alike for all heads, so it is
added after the mixing (a share of -inf in another head would be a head without keys, and 0 · inf is NaN)::

    P_g = softmax(sum_i W_pre[g, i] (Q'_i K'_i^T s + B_i) + b_pre[g] + M)
    A_g = sum_i W_post[g, i] P_i + b_post[g]

The bias after the softmax reaches masked keys too, as in the equation without a mask: only where all heads' weights
are 0 by a mask of -inf, A is masked as well.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_dropout
from ..tracing import traceable


@traceable
def talking_heads_attention_with(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    pre_bias: Tensor | None,
    post_weight: Tensor,
    post_bias: Tensor | None,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    scale: float,
) -> Tensor:
    """(B, N, h, c) of q, k, v (B, h, N, c); keeps (B, h, N, N).

    Args:
        q, k, v: the heads, overlapped and rotated where they are to be.
        pre_weight, pre_bias, post_weight, post_bias: as ``talking_heads_attention``.
        bias: (h, N, N) or (B, h, N, N), added to each head's logits.
        mask: boolean (True takes part) or additive, broadcastable to (B, 1, N, N), alike for all heads.
        is_causal: each token attends to itself and those before it.
        dropout_p: the share of mixed attention weights that is dropped.
        scale: factor of the logits.
    """
    logits = (q * scale) @ k.mT
    if bias is not None:
        logits = logits + bias.to(logits.dtype)
    weights = mixed_weights(logits, pre_weight, pre_bias, post_weight, post_bias, mask, is_causal)
    return (F.dropout(weights, check_dropout(dropout_p)) @ v).transpose(1, 2)


def mixed_weights(
    logits: Tensor,
    pre_weight: Tensor,
    pre_bias: Tensor | None,
    post_weight: Tensor,
    post_bias: Tensor | None,
    mask: Tensor | None = None,
    is_causal: bool = False,
    rows: Tensor | None = None,
) -> Tensor:
    """A (B, h, rows, N) of the heads' logits; ``rows``: which queries they are, all in order unless given."""
    mixed = mix_heads(pre_weight, logits, pre_bias)
    allowed: Tensor | None = None
    if is_causal:
        key = torch.arange(logits.shape[-1], device=logits.device)
        allowed = key <= (key if rows is None else rows).unsqueeze(1)
    if mask is not None and mask.dtype == torch.bool:
        allowed = mask if allowed is None else allowed & mask
    elif mask is not None:
        mixed = mixed + mask.to(mixed.dtype)
    if allowed is not None:
        mixed = mixed.masked_fill(~allowed, -torch.inf)
    forbidden = mixed == -torch.inf
    dead = forbidden.all(dim=-1, keepdim=True)
    weights = mixed.masked_fill(dead, 0.0).softmax(dim=-1).masked_fill(dead, 0.0)
    return mix_heads(post_weight, weights, post_bias).masked_fill(forbidden, 0.0)


def mix_heads(weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """The heads of x (B, h, rows, N) mixed: out[:, g] = sum_i weight[g, i] x[:, i] + bias[g]."""
    mixed = (weight.to(x.dtype) @ x.flatten(2)).view(x.shape)
    return mixed if bias is None else mixed + bias.to(x.dtype)[:, None, None]

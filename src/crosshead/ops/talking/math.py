"""Talking heads in PyTorch's differentiable functions alone: for a bias or a mask of the logits, and for what the fast
paths cannot follow (``ops/modes.py``). It keeps (B, h, N, N).

A bias belongs to a head, so it is part of the logits that are mixed; a mask parts tokens alike for all heads, so it is
added after the mixing (a share of -inf in another head would be a head without keys, and 0 · inf is NaN)::

    P_g = softmax(sum_i W_pre[g, i] (Q'_i K'_i^T s + B_i) + b_pre[g] + M)
    A_g = sum_i W_post[g, i] P_i + b_post[g]

The bias after the softmax reaches masked keys too, as in the equation without a mask: only where all heads' weights
are 0 by a mask of -inf, A is masked as well.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    post_weight: Tensor,
    post_bias: Tensor,
    scale: float,
    drop: Callable[[Tensor], Tensor],
) -> Tensor:
    """O (B, N, h, c) of q, k, v (B, h, N, c); ``drop`` is applied to the mixed attention weights."""
    weights = _mixed_weights((q * scale) @ k.mT, pre_weight, None, post_weight, post_bias)
    return (drop(weights) @ v).transpose(1, 2)


def attention_with(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    pre_bias: Tensor | None,
    post_weight: Tensor,
    post_bias: Tensor | None,
    *,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float,
    dropout_p: float = 0.0,
) -> Tensor:
    """(B, N, h, c) of q, k, v (B, h, N, c), overlapped and rotated where they are to be.

    The rest is as in ``talking_heads_attention``.
    """
    logits = (q * scale) @ k.mT
    if attn_bias is not None:
        logits = logits + attn_bias.to(logits.dtype)
    weights = _mixed_weights(logits, pre_weight, pre_bias, post_weight, post_bias, attn_mask, is_causal)
    return (F.dropout(weights, dropout_p) @ v).transpose(1, 2)


def _mixed_weights(
    logits: Tensor,
    pre_weight: Tensor,
    pre_bias: Tensor | None,
    post_weight: Tensor,
    post_bias: Tensor | None,
    mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """A (B, h, N, N) of the heads' logits."""
    mixed = _mix(pre_weight, logits, pre_bias)
    allowed: Tensor | None = None
    if is_causal:
        key = torch.arange(logits.shape[-1], device=logits.device)
        allowed = key <= key.unsqueeze(1)
    if mask is not None and mask.dtype == torch.bool:
        allowed = mask if allowed is None else allowed & mask
    elif mask is not None:
        mixed = mixed + mask.to(mixed.dtype)
    if allowed is not None:
        mixed = mixed.masked_fill(~allowed, -torch.inf)
    forbidden = mixed == -torch.inf
    dead = forbidden.all(dim=-1, keepdim=True)
    weights = mixed.masked_fill(dead, 0.0).softmax(dim=-1).masked_fill(dead, 0.0)
    return _mix(post_weight, weights, post_bias).masked_fill(forbidden, 0.0)


def _mix(weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """The heads of x (B, h, N, N) mixed: out[:, g] = sum_i weight[g, i] x[:, i] + bias[g]."""
    mixed = (weight.to(x.dtype) @ x.flatten(2)).view(x.shape)
    return mixed if bias is None else mixed + bias.to(x.dtype)[:, None, None]

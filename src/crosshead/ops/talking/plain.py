"""Talking heads in plain differentiable PyTorch, for what the fast paths cannot follow (``ops/transforms.py``)."""

from collections.abc import Callable

from torch import Tensor

from .added import mixed_weights


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
    weights = mixed_weights((q * scale) @ k.mT, pre_weight, None, post_weight, post_bias)
    return (drop(weights) @ v).transpose(1, 2)

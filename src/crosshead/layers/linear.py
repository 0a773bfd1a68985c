"""What a linear layer computes, where something else may stand in its place: an adapter, say."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def weight_and_bias(linear: nn.Module) -> tuple[Tensor, Tensor | None]:
    """The weight (out, in) and the bias (out,) of a small linear layer.

    What stands in its place (PEFT's adapters, or its copies that are trained) is asked what it makes of the unit
    vectors, so that it counts, and its parameters learn.
    """
    if isinstance(linear, nn.Linear):
        return linear.weight, linear.bias
    like: Any = linear.weight
    made: Tensor = linear(torch.eye(like.shape[1] + 1, like.shape[1], dtype=like.dtype, device=like.device))
    bias = made[-1]  # of the row of zeros
    return (made[:-1] - bias).T, bias


def own_weight(linear: nn.Module) -> Tensor:
    """The weight itself, of a layer in which nothing else adds to it; ValueError where something does."""
    if not isinstance(linear, nn.Linear):
        raise ValueError(
            f"what mixes the heads is a {type(linear).__name__}, whose weight is not all that counts; merge adapters "
            "before heads are taken away"
        )
    return linear.weight


def linear_with(linear: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer with another bias than its own, which may be None; what stands in its place is called."""
    if isinstance(linear, nn.Linear):
        return F.linear(x, linear.weight, bias)
    out: Tensor = linear(x)
    own: Any = linear.bias
    if own is not None:
        out = out - own
    return out if bias is None else out + bias

"""Dropout that can be drawn again: from a seed that lies on the device, so that no pass waits for it.

Attention that is formed again in the backward pass drops the same weights there, and keeps no mask. The seed is a
tensor beside the weights; on a GPU a kernel reads it, and a CUDA graph that has captured the call draws anew at each
replay.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .paths import HAS_TRITON


class Draw(NamedTuple):
    """One of many draws from the same seed."""

    seed: Tensor
    number: int


def new_seed(dropout_p: float, device: torch.device) -> Tensor | None:
    """What draws are made from, of the device's global generator; None where nothing is dropped."""
    return torch.randint(2**62, (), device=device) if dropout_p > 0 else None


def drop(weights: Tensor, dropout_p: float, draw: Draw | None) -> Tensor:
    """Dropout of a draw, or (None) of the global generator."""
    if dropout_p == 0.0:
        return weights
    if draw is None:
        return torch.dropout(weights, dropout_p, train=True)
    return weights * kept(weights, dropout_p, draw)


def kept(weights: Tensor, dropout_p: float, draw: Draw) -> Tensor:
    """0 for what is dropped of ``weights``, 1 / (1 - p) for what is kept."""
    found: Tensor = _factors(weights.detach(), draw.seed, draw.number, dropout_p)
    return found


@torch.library.custom_op("crosshead::dropout_factors", mutates_args=())
def _factors(like: Tensor, seed: Tensor, number: int, p: float) -> Tensor:
    out = torch.empty_like(like, memory_format=torch.contiguous_format)
    if HAS_TRITON and like.device.type == "cuda":
        from .dropout_kernel import fill_factors

        filled: Tensor = fill_factors(out, seed, number, p)
        return filled
    generator = torch.Generator(like.device).manual_seed(int(seed) + number)
    return out.bernoulli_(1 - p, generator=generator).div_(1 - p)


@_factors.register_fake
def _(like, *_):  # type: ignore[no-untyped-def]
    return torch.empty_like(like, memory_format=torch.contiguous_format)

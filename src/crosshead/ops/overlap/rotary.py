"""Overlapped heads whose queries and keys carry rotary positions.

Neighbours are read **before** the rotation, and the rotation turns a head's own d channels only: borrowed channels have
no pairs of their own to turn by (their number may be odd, and halves of a half-split pair lie d/2 apart). Own
channels' logits then depend on differences of positions, borrowed ones' on no position at all.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .windows import overlapped_heads


def rotated_overlapped_heads(
    qkv: Tensor, overlap: int, rotate: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Q', K', V', each (B, h, N, d + 2·overlap), of packed qkv (B, N, 3, h, d) that is not rotated yet.

    ``rotate`` turns queries or keys (B, h, N, d).
    """
    head_dim = qkv.shape[-1]
    q, k, v = overlapped_heads(qkv, overlap)
    q, k = (_turned(x, overlap, head_dim, rotate).to(v.dtype) for x in (q, k))
    return q, k, v


def _turned(x: Tensor, overlap: int, head_dim: int, rotate: Callable[[Tensor], Tensor]) -> Tensor:
    own = rotate(x[..., overlap : overlap + head_dim])
    if overlap == 0:
        return own
    return torch.cat(
        [x[..., :overlap].to(own.dtype), own, x[..., overlap + head_dim :].to(own.dtype)], dim=-1
    )

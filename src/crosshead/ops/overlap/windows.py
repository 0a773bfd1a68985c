"""The overlapped heads as views: one padded copy of qkv, read through windows that share memory.

Slicing and stacking would write every borrowed channel twice; here the padding is the only copy. What autograd does
not have is a fast backward of such views, which is an overlap-add: every channel gathers the gradient of the windows
that read it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def overlapped_heads(qkv: Tensor, overlap: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q', K', V', each (B, h, N, d + 2·overlap), of packed qkv (B, N, 3, h, d)."""
    if overlap == 0:
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v
    return _OverlappedHeads.apply(qkv, overlap)


def padded_windows(qkv: Tensor, overlap: int) -> Tensor:
    """Overlapping views (3, B, h, N, d + 2·overlap) of qkv (B, N, 3, h, d), padded once with ``overlap`` zeros."""
    head_dim = qkv.shape[-1]
    padded = F.pad(qkv.flatten(3), (overlap, overlap))
    return padded.unfold(-1, head_dim + 2 * overlap, head_dim).permute(2, 0, 3, 1, 4)


class _OverlappedHeads(torch.autograd.Function):
    """Forward: the windows. Backward: their overlap-add into one packed gradient."""

    @staticmethod
    def forward(qkv: Tensor, overlap: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = padded_windows(qkv, overlap).unbind(0)
        return q, k, v

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Any) -> None:
        ctx.overlap = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        if torch.compiler.is_compiling():
            # The compiler fuses the gather form into one kernel, and makes copies of the in-place one.
            return torch.stack([_gather(grad, ctx.overlap) for grad in grads], dim=2), None
        batch, num_heads, tokens, width = grads[0].shape
        packed = grads[0].new_empty(batch, tokens, 3, num_heads, width - 2 * ctx.overlap)
        for grad, heads in zip(grads, packed.unbind(2), strict=True):
            overlap_add_(heads, grad.transpose(1, 2), ctx.overlap)
        return packed, None


def overlap_add_(heads: Tensor, windows: Tensor, overlap: int) -> None:
    """Fills ``heads`` (..., h, d) with the sum of what ``windows`` (..., h, d + 2·overlap) hold for each channel."""
    head_dim = heads.shape[-1]
    heads.copy_(windows[..., overlap : overlap + head_dim])
    heads[..., :-1, head_dim - overlap :] += windows[..., 1:, :overlap]
    heads[..., 1:, :overlap] += windows[..., :-1, overlap + head_dim :]


def _gather(grad: Tensor, overlap: int) -> Tensor:
    """The overlap-add of one gradient (B, h, N, d + 2·overlap) without in-place writes: (B, N, h, d)."""
    grad = grad.transpose(1, 2)
    head_dim = grad.shape[-1] - 2 * overlap
    rest = head_dim - overlap
    own = grad[..., overlap : overlap + head_dim]
    lent_to_next = F.pad(grad[..., 1:, :overlap], (rest, 0, 0, 1))
    lent_to_previous = F.pad(grad[..., :-1, overlap + head_dim :], (0, rest, 1, 0))
    return own + lent_to_next + lent_to_previous

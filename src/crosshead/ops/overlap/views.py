"""The overlapped heads Q', K', V': as views of one padded copy of qkv, in plain PyTorch, rotated, and with gains.

Slicing and stacking would write every borrowed channel twice; of views the padding is the only copy. What autograd does
not have is a fast backward of such views, which is an overlap-add: every channel gathers the gradient of the windows
that read it.

``plain_attention`` is the operator in plain differentiable PyTorch, for what the fast paths can't follow
(``ops/modes.py``).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import sdpa
from ..checks import check_gain
from ..modes import is_differentiated_again, is_transformed, traceable

# Rows that begin on a cache line: sixteen float32 numbers.
_ROW_MULTIPLE = 16


@traceable
def overlapped_heads(qkv: Tensor, overlap: int, tail: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Q', K', V', each (B, h, N, d + 2·overlap + tail), of packed qkv (B, N, 3, h, d).

    Products of a width that is no multiple of 8 are slow on a CPU. With ``tail`` the windows read on past their end:
    Q' holds zeros there, so that the logits stay what they are; V' holds other heads' channels, and the caller drops
    the result's last ``tail`` columns.
    """
    if overlap == 0 and tail == 0:
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v
    if is_transformed(qkv) and not tail:
        q, k, v = plain_windows(qkv, overlap).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v
    out: tuple[Tensor, Tensor, Tensor] = _OverlappedHeads.apply(qkv, overlap, tail)
    return out


def plain_windows(heads: Tensor, overlap: int) -> Tensor:
    """Every head between the ends of its neighbours: (..., h, d) -> (..., h, d + 2·overlap)."""
    before = F.pad(heads[..., :-1, heads.shape[-1] - overlap :], (0, 0, 1, 0))
    after = F.pad(heads[..., 1:, :overlap], (0, 0, 0, 1))
    return torch.cat([before, heads, after], dim=-1) if overlap else heads


def rotated_overlapped_heads(
    qkv: Tensor, overlap: int, rotate: Callable[[Tensor], Tensor], tail: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Q', K', V', each (B, h, N, d + 2·overlap + tail), of packed qkv (B, N, 3, h, d) that is not rotated yet.

    Neighbours are read **before** the rotation, which ``rotate`` does to queries or keys (B, h, N, d), and it turns a
    head's own d channels only: borrowed channels have no pairs of their own to turn by (their number may be odd, and
    halves of a half-split pair lie d/2 apart). Own channels' logits then depend on differences of positions, borrowed
    ones' on no position at all.
    """
    head_dim = qkv.shape[-1]
    q, k, v = overlapped_heads(qkv, overlap, tail)
    q, k = (_turned(x, overlap, head_dim, rotate).to(v.dtype) for x in (q, k))
    return q, k, v


def _turned(x: Tensor, overlap: int, head_dim: int, rotate: Callable[[Tensor], Tensor]) -> Tensor:
    own = rotate(x[..., overlap : overlap + head_dim])
    if x.shape[-1] == head_dim:
        return own
    return torch.cat(
        [x[..., :overlap].to(own.dtype), own, x[..., overlap + head_dim :].to(own.dtype)], dim=-1
    )


def borrowed_factors(
    borrow_gain: Tensor | None, num_heads: int, head_dim: int, overlap: int, dtype: torch.dtype, tail: int = 0
) -> Tensor | None:
    """The factors (h, 1, d + 2·overlap + tail) of overlapped queries; None where there is no gain.

    ``borrow_gain`` (h, 2·overlap) for the channels of the head before and of the head after, 1 for all others.
    """
    if borrow_gain is None:
        return None
    gain = check_gain(borrow_gain, num_heads, overlap).to(dtype)
    before = F.pad(gain[:, :overlap], (0, head_dim + overlap + tail), value=1.0)
    after = F.pad(gain[:, overlap:], (overlap + head_dim, tail), value=1.0)
    return (before * after).unsqueeze(1)


def scale_borrowed(
    q: Tensor, borrow_gain: Tensor | None, head_dim: int, overlap: int, tail: int = 0
) -> Tensor:
    """Overlapped queries (B, h, N, d + 2·overlap + tail), their borrowed channels multiplied."""
    factors = borrowed_factors(borrow_gain, q.shape[1], head_dim, overlap, q.dtype, tail)
    return q if factors is None else q * factors


def padded_windows(qkv: Tensor, overlap: int, tail: int = 0) -> Tensor:
    """Overlapping views (3, B, h, N, d + 2·overlap + tail) of qkv (B, N, 3, h, d), padded once with zeros."""
    num_heads, head_dim = qkv.shape[3:]
    padded = _pad(qkv.flatten(3), overlap, overlap + tail)
    return padded.unfold(-1, head_dim + 2 * overlap + tail, head_dim)[..., :num_heads, :].permute(
        2, 0, 3, 1, 4
    )


def _pad(channels: Tensor, left: int, right: int) -> Tensor:
    """Zeros on both ends of the last axis; ``F.pad`` would first write zeros everywhere."""
    if torch.compiler.is_compiling():
        return F.pad(channels, (left, right))
    width = channels.shape[-1]
    row = -(-(left + width + right) // _ROW_MULTIPLE) * _ROW_MULTIPLE
    padded = channels.new_empty(*channels.shape[:-1], row)
    padded[..., :left] = 0
    padded[..., left + width :] = 0
    padded[..., left : left + width] = channels
    return padded[..., : left + width + right]


class _OverlappedHeads(torch.autograd.Function):
    """Forward: the windows. Backward: their overlap-add into one packed gradient."""

    @staticmethod
    def forward(qkv: Tensor, overlap: int, tail: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = padded_windows(qkv, overlap, tail).unbind(0)
        if tail:
            q = _pad(q[..., :-tail].transpose(1, 2), 0, tail).transpose(1, 2)
        return q, k, v

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int], output: Any) -> None:
        ctx.overlap = inputs[1]
        ctx.head_dim = inputs[0].shape[-1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        width = ctx.head_dim + 2 * ctx.overlap  # V' has no gradient in its tail, and K' meets zeros there
        windows = [grad[..., :width].transpose(1, 2) for grad in grads]
        if torch.compiler.is_compiling() or is_differentiated_again():
            # The compiler fuses the gather form into one kernel, and makes copies of the in-place one, which autograd
            # cannot differentiate again.
            return torch.stack([_gather(window, ctx.overlap) for window in windows], dim=2), None, None
        batch, tokens, num_heads, _ = windows[0].shape
        packed = windows[0].new_empty(batch, tokens, 3, num_heads, ctx.head_dim)
        for window, heads in zip(windows, packed.unbind(2), strict=True):
            overlap_add_(heads, window, ctx.overlap)
        return packed, None, None


def overlap_add_(heads: Tensor, windows: Tensor, overlap: int) -> None:
    """Fills ``heads`` (..., h, d) with the sum of what ``windows`` (..., h, d + 2·overlap) hold for each channel."""
    head_dim = heads.shape[-1]
    heads.copy_(windows[..., overlap : overlap + head_dim])
    if overlap:
        heads[..., :-1, head_dim - overlap :] += windows[..., 1:, :overlap]
        heads[..., 1:, :overlap] += windows[..., :-1, overlap + head_dim :]


def _gather(windows: Tensor, overlap: int) -> Tensor:
    """The overlap-add of windows (B, N, h, d + 2·overlap) without in-place writes: (B, N, h, d)."""
    head_dim = windows.shape[-1] - 2 * overlap
    rest = head_dim - overlap
    own = windows[..., overlap : overlap + head_dim]
    lent_to_next = F.pad(windows[..., 1:, :overlap], (rest, 0, 0, 1))
    lent_to_previous = F.pad(windows[..., :-1, overlap + head_dim :], (0, rest, 1, 0))
    return own + lent_to_next + lent_to_previous


def plain_attention(
    qkv: Tensor,
    overlap: int,
    scale: float,
    attn_mask: Tensor | None = None,
    factors: Tensor | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """(B, N, h·(d + 2·overlap)) of qkv (B, N, 3, h, d); ``factors`` (h, 1, d + 2·overlap) multiply the queries."""
    q, k, v = plain_windows(qkv, overlap).permute(2, 0, 3, 1, 4).unbind(0)
    if factors is not None:
        q = q * factors
    heads = sdpa.plain_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)
    return heads.transpose(1, 2).flatten(2)


def plain_window_attention(
    qkv: Tensor, bias: Tensor, factors: Tensor | None, overlap: int, scale: float, dropout_p: float = 0.0
) -> Tensor:
    """The same in windows, those of an image together; ``bias`` (windows or 1, h, N, N) is added to the logits."""
    bias = repeat_over_images(bias, qkv.shape[0]).to(qkv.dtype)
    return plain_attention(qkv, overlap, scale, bias, factors, dropout_p=dropout_p)


def repeat_over_images(bias: Tensor, batch: int) -> Tensor:
    """(windows or 1, h, N, N) as (batch or 1, h, N, N), for a batch of images · windows."""
    if bias.shape[0] == 1:
        return bias
    return bias.expand(batch // bias.shape[0], -1, -1, -1, -1).flatten(0, 1)

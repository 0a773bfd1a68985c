"""Overlapped heads in windows of an image, as Swin has them: a learned position bias, and a mask between windows."""

from typing import Any

import torch
from torch import Tensor

from ..checks import check_dropout, check_overlap, check_packed
from ..modes import autocast_to, is_transformed
from ..paths import HAS_TRITON, Conditions, padding, window_products_obstacles
from ..private_torch import is_without_data
from ..sdpa import fused_attention
from .views import (
    borrowed_factors,
    overlapped_heads,
    plain_window_attention,
    repeat_over_images,
    scale_borrowed,
)
from .window_products import WindowProducts


def packed_window_attention(
    qkv: Tensor,
    overlap: int,
    bias: Tensor,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    borrow_gain: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Overlapped heads (arXiv 2410.14874) inside windows (Swin, arXiv 2103.14030).

    Args:
        qkv: packed queries, keys and values (images · windows, N, 3, h, d), the windows of an image together.
        overlap: borrowed channels a side, 0 to d.
        bias: relative position bias (h, N, N), added to the logits.
        mask: (windows, N, N), added to the logits too, or None. It gets no gradient. A query with no key left attends
            to nothing.
        scale, dropout_p, borrow_gain, backend: as in ``overlapped_attention``.

    Returns:
        The heads side by side (images · windows, N, h·(d + 2·overlap)), ready for the projection.

    Raises:
        ValueError: for sizes that do not fit, or a backend that can't serve.
    """
    batch, tokens, num_heads, head_dim = check_packed(qkv)
    check_overlap(overlap, head_dim)
    check_dropout(dropout_p)
    qkv = autocast_to(qkv)
    total = window_bias(bias, mask, (batch, num_heads, tokens))
    scale = head_dim**-0.5 if scale is None else scale
    factors = borrowed_factors(borrow_gain, num_heads, head_dim, overlap, qkv.dtype)
    given = Conditions.of(qkv)
    obstacles = window_products_obstacles(given, dropout_p)
    if backend == "math" or is_transformed(qkv, total, factors):
        return plain_window_attention(qkv, total, factors, overlap, scale, dropout_p)
    if backend == "triton":
        additive = None if mask is None else mask.unsqueeze(1)
        return fused(qkv, overlap, scale, bias, additive, False, dropout_p, borrow_gain)
    if backend == "products" and obstacles:
        raise ValueError(f"backend='products' can't serve this: {'; '.join(obstacles)}; use backend='auto'")
    if backend != "sdpa" and not obstacles:
        keep = torch.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in (qkv, total, factors)
        )
        # Only an infinite entry can close a row, and looking at the summands for one is cheap.
        closed = _closed_rows(total) if _has_closed(bias) or _has_closed(mask) else None
        out: Tensor = WindowProducts.apply(qkv, total, factors, closed, overlap, scale, keep)
        return out

    width = head_dim + 2 * overlap
    tail = padding(given, width)
    q, k, v = overlapped_heads(qkv, overlap, tail)
    q = scale_borrowed(q, borrow_gain, head_dim, overlap, tail)
    total = repeat_over_images(total.to(qkv.dtype), batch)
    heads = fused_attention(q, k, v, total, dropout_p, scale=scale)
    return heads[..., :width].transpose(1, 2).flatten(2)


def fused(qkv: Tensor, *operands: Any) -> Tensor:
    """``attend_fused`` of a file that needs Triton."""
    if not HAS_TRITON:
        raise ValueError("backend='triton' needs Triton, which is not installed; use backend='auto'")
    from .fused import attend_fused

    return attend_fused(qkv, *operands)


def _has_closed(x: Tensor | None) -> bool:
    if x is None or x.numel() == 0:
        return False
    least = x.detach().amin()
    # A tensor without data, as operations are counted with, may hold anything.
    return is_without_data(least) or not bool(least > -torch.inf)


def _closed_rows(bias: Tensor) -> Tensor:
    """Which queries may see no key at all, (windows or 1, h, N, 1): they attend to nothing."""
    return (bias.detach() == -torch.inf).all(-1, keepdim=True)


def window_bias(bias: Tensor, mask: Tensor | None, sizes: tuple[int, int, int]) -> Tensor:
    """What is added to the logits of each window of an image: (windows or 1, h, N, N)."""
    batch, num_heads, tokens = sizes
    if bias.shape != (num_heads, tokens, tokens):
        raise ValueError(
            f"bias must be (num_heads, N, N) = ({num_heads}, {tokens}, {tokens}), got {tuple(bias.shape)}; "
            "the layer's window size must be that of the windows that it is given"
        )
    if mask is None:
        return bias.unsqueeze(0)
    if mask.dim() != 3 or mask.shape[1:] != (tokens, tokens) or batch % mask.shape[0]:
        raise ValueError(
            f"mask must be (windows, N, N) = (windows, {tokens}, {tokens}), with a number of windows that divides "
            f"the batch of {batch}, got {tuple(mask.shape)}"
        )
    return bias + mask.detach().to(bias.dtype).unsqueeze(1)

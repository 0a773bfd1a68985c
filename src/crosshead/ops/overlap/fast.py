"""Overlapped-head attention as the library uses it: overlapping views handed to PyTorch's fused attention."""

from typing import Literal, get_args

import torch
from torch import Tensor

from ..checks import (
    check_bias,
    check_dropout,
    check_mask,
    check_overlap,
    check_packed,
    check_self_attention,
    stack_heads,
)
from ..modes import autocast_to, is_transformed, traceable
from ..paths import Conditions, is_faster_in_float32, padding, products_obstacles
from ..renamed import took_packed
from ..sdpa import fused_attention, joined_mask
from . import products
from .views import borrowed_factors, overlapped_heads, plain_attention, scale_borrowed
from .windowed import fused, packed_window_attention

Backend = Literal["auto", "sdpa", "products", "triton", "math"]


def packed_attention(
    qkv: Tensor,
    overlap: int,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    dropout_p: float = 0.0,
    borrow_gain: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """``overlapped_attention`` of packed qkv (B, N, 3, h, d), as one projection gives them: (B, N, h·(d + 2·overlap)),
    the heads side by side, ready for the next projection."""
    batch, tokens, num_heads, head_dim = check_packed(qkv)
    check_overlap(overlap, head_dim)
    check_dropout(dropout_p)
    check_mask(attn_mask, (batch, num_heads, tokens, tokens))
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask and is_causal exclude each other; put the causal part into attn_mask")
    scale = head_dim**-0.5 if scale is None else scale
    qkv = autocast_to(qkv)
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.to(qkv.dtype)
    given = Conditions.of(qkv)
    obstacles = products_obstacles(
        given, dropout_p, masked=attn_mask is not None or is_causal, gains=borrow_gain is not None
    )
    if backend == "math" or is_transformed(qkv, attn_mask, borrow_gain):
        factors = borrowed_factors(borrow_gain, num_heads, head_dim, overlap, qkv.dtype)
        return plain_attention(qkv, overlap, scale, attn_mask, factors, is_causal, dropout_p)
    if backend == "triton":
        return fused(qkv, overlap, scale, None, attn_mask, is_causal, dropout_p, borrow_gain)
    if backend == "products" and obstacles:
        raise ValueError(f"backend='products' can't serve this: {'; '.join(obstacles)}; use backend='auto'")
    if backend != "sdpa" and not obstacles:
        out: Tensor = products.ProductsAttention.apply(qkv, overlap, scale)
        return out
    if is_faster_in_float32(given):
        with torch.autocast("cpu", enabled=False):
            wide = qkv.float()
            mask = attn_mask.float() if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
            return _by_views(wide, overlap, mask, is_causal, dropout_p, scale, borrow_gain).to(qkv.dtype)
    return _by_views(qkv, overlap, attn_mask, is_causal, dropout_p, scale, borrow_gain)


@took_packed(packed_attention)
@traceable
def overlapped_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    overlap: int,
    *,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    dropout_p: float = 0.0,
    borrow_gain: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Attention whose heads overlap their neighbours (MOHSA, arXiv 2410.14874, section 3).

    Head i attends with the channels of its own and the nearest ``overlap`` of either neighbour; the first and the last
    head see zeros where no neighbour is. ``overlap=0`` is plain multi-head attention. Memory is linear in N, but for a
    bias that learns.

    Args:
        q, k, v: (B, h, N, d), any strides.
        overlap: borrowed channels a side, 0 to d.
        attn_mask: boolean (True takes part) or additive, broadcastable to (B, h, N, N). A query with no key left
            attends to nothing.
        attn_bias: added to the logits, broadcastable to (B, h, N, N); one of (h, N, N) that learns is fastest.
        is_causal: each token attends to itself and those before it. Excludes ``attn_mask``.
        scale: factor of the logits; d^(-1/2) by default, the width before overlapping, as the authors have it.
        dropout_p: the share of attention weights that is dropped. Give 0 in evaluation.
        borrow_gain: factors (h, 2·overlap) of the borrowed channels of the queries: first those of the head before,
            then those of the head after. 1 is the paper's operator, 0 gives plain attention's weights.
        backend: ``sdpa`` hands overlapping views to PyTorch's fused attention; ``products`` are explicit products of a
            CPU's, in bfloat16, or with a bias (h, N, N); ``triton`` is one fused GPU kernel a pass that copies nothing
            and has not been timed on a GPU yet; ``math`` is PyTorch's differentiable functions alone, which
            also serves under ``torch.func`` and forward-mode differentiation whatever is asked for; ``auto`` takes the
            fastest that can.

    Returns:
        The heads (B, h, N, d + 2·overlap); under autocast in autocast's dtype.

    Raises:
        ValueError: for operands, an overlap or a mask that do not fit, or a backend that can't serve them.
    """
    shape = check_self_attention(q, k, v)
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    attn_bias, attn_mask = check_bias(attn_bias, shape), check_mask(attn_mask, shape)
    qkv = stack_heads(q, k, v)
    if attn_bias is not None and not is_causal and _are_of_windows(attn_bias, attn_mask):
        out = packed_window_attention(
            qkv,
            overlap,
            attn_bias.expand(shape[1:]),
            mask=_additive(attn_mask, attn_bias, shape),
            scale=scale,
            dropout_p=dropout_p,
            borrow_gain=borrow_gain,
            backend=backend,
        )
    else:
        out = packed_attention(
            qkv,
            overlap,
            attn_mask=joined_mask(attn_bias, attn_mask, is_causal, shape[2]),
            is_causal=is_causal and attn_bias is None,
            scale=scale,
            dropout_p=dropout_p,
            borrow_gain=borrow_gain,
            backend=backend,
        )
    found: Tensor = out.unflatten(2, (shape[1], -1)).transpose(1, 2)
    return found


def _are_of_windows(attn_bias: Tensor, attn_mask: Tensor | None) -> bool:
    """Whether a bias is that of the heads and a mask that of the windows: what the path of windows takes."""
    own = attn_bias.dim() <= 3
    if attn_mask is None or attn_mask.dim() < 3:
        return own and not (attn_mask is not None and attn_mask.requires_grad)
    return own and attn_mask.shape[-3] == 1 and not attn_mask.requires_grad


def _additive(attn_mask: Tensor | None, like: Tensor, shape: tuple[int, int, int, int]) -> Tensor | None:
    """A mask that is alike for all heads as (B or 1, N, N), added to the logits."""
    if attn_mask is None:
        return None
    if attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=like.dtype).masked_fill(~attn_mask, -torch.inf)
    attn_mask = attn_mask[(None,) * (4 - attn_mask.dim())].squeeze(1)
    return attn_mask.expand(attn_mask.shape[0], *shape[2:])


def _by_views(
    qkv: Tensor,
    overlap: int,
    attn_mask: Tensor | None,
    is_causal: bool,
    dropout_p: float,
    scale: float,
    borrow_gain: Tensor | None,
) -> Tensor:
    head_dim = qkv.shape[-1]
    width = head_dim + 2 * overlap
    tail = padding(Conditions.of(qkv), width)
    q, k, v = overlapped_heads(qkv, overlap, tail)
    q = scale_borrowed(q, borrow_gain, head_dim, overlap, tail)
    heads = fused_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)
    return heads[..., :width].transpose(1, 2).flatten(2)

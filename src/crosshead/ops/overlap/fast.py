"""Overlapped-head attention as the library uses it: overlapping views handed to PyTorch's fused attention."""

import torch
from torch import Tensor

from ..autocast import autocast_to
from ..checks import check_dropout, check_mask, check_overlap, check_packed
from ..processor import has_native_bfloat16
from ..sdpa import fused_attention
from ..tracing import traceable
from ..transforms import is_transformed
from .gain import borrowed_factors, scale_borrowed
from .plain import plain_attention
from .products import ProductsAttention, is_served
from .windows import overlapped_heads


@traceable
def overlapped_attention(
    qkv: Tensor,
    overlap: int,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    scale: float | None = None,
    borrow_gain: Tensor | None = None,
) -> Tensor:
    """Attention whose heads overlap their neighbours (MOHSA, arXiv 2410.14874, section 3).

    Head i attends with the channels of its own and the nearest ``overlap`` of either neighbour; the first and the last
    head see zeros where no neighbour is. ``overlap=0`` is plain multi-head attention. Memory is linear in N.

    Args:
        qkv: packed queries, keys and values (B, N, 3, h, d), as one projection gives them.
        overlap: borrowed channels a side, 0 to d.
        attn_mask: boolean (True takes part) or additive, broadcastable to (B, h, N, N). A query with no key left
            attends to nothing.
        is_causal: each token attends to itself and those before it. Excludes ``attn_mask``.
        dropout_p: the share of attention weights that is dropped. Give 0 in evaluation.
        scale: factor of the logits; d^(-1/2) by default, the width before overlapping, as the authors have it.
        borrow_gain: factors (h, 2·overlap) of the borrowed channels of the queries: first those of the head before,
            then those of the head after. 1 is the paper's operator, 0 gives plain attention's weights.

    Returns:
        The heads side by side (B, N, h·(d + 2·overlap)), ready for the projection.

    Raises:
        ValueError: for an overlap, a mask or a packing that does not fit.
    """
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
    if is_transformed(qkv, attn_mask, borrow_gain):
        factors = borrowed_factors(borrow_gain, num_heads, head_dim, overlap, qkv.dtype)
        return plain_attention(qkv, overlap, scale, attn_mask, factors, is_causal, dropout_p)
    if is_served(qkv, attn_mask, is_causal, dropout_p, borrow_gain):
        return ProductsAttention.apply(qkv, overlap, scale)
    if _is_faster_in_float32(qkv):
        with torch.autocast("cpu", enabled=False):
            wide = qkv.float()
            mask = attn_mask.float() if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
            return _by_views(wide, overlap, mask, is_causal, dropout_p, scale, borrow_gain).to(qkv.dtype)
    return _by_views(qkv, overlap, attn_mask, is_causal, dropout_p, scale, borrow_gain)


def _is_faster_in_float32(qkv: Tensor) -> bool:
    """bfloat16 on a processor that has to convert at every operation."""
    return (
        qkv.device.type == "cpu"
        and qkv.dtype == torch.bfloat16
        and not has_native_bfloat16()
        and not torch.compiler.is_compiling()
    )


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
    tail = _tail(qkv, width)
    q, k, v = overlapped_heads(qkv, overlap, tail)
    q = scale_borrowed(q, borrow_gain, head_dim, overlap, tail)
    q, k, v = (_aligned(x) for x in (q, k, v))
    heads = fused_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)
    return heads[..., :width].transpose(1, 2).flatten(2)


def _aligned(x: Tensor) -> Tensor:
    """``x`` (B, h, N, c), copied where flash attention would read it misaligned.

    On a GPU it reads half-precision rows as vectors of eight. PyTorch makes a copy where the width is no multiple of
    eight, but where it is one (d 20, o 2), it does not ask whether the heads lie that far apart.
    """
    if x.device.type == "cpu" or x.element_size() != 2 or x.shape[-1] % 8:
        return x
    return x if all(stride % 8 == 0 for stride in x.stride()[:-1]) else x.contiguous()


def _tail(qkv: Tensor, width: int) -> int:
    """Columns that round ``width`` up to a multiple of 8 where that pays: two of them, on a CPU.

    Measured (benchmarks/overlap.py): 38 to 40 columns save 5% of a training step's attention; where four or six
    are missing, the copies that the rounding takes cost as much as it saves.
    """
    tail = -width % 8
    eager_cpu = qkv.device.type == "cpu" and not torch.compiler.is_compiling()
    return tail if eager_cpu and tail <= 2 else 0

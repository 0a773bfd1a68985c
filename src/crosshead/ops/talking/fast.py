"""Talking-heads attention as the library uses it: the choice between its two fast paths."""

from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from ..autocast import autocast_to
from ..checks import check_dropout, check_gain, check_overlap, check_packed
from ..overlap.gain import scale_borrowed
from ..overlap.windows import overlapped_heads
from ..tracing import traceable
from ..transforms import is_transformed
from .arguments import check_mixing
from .chunked import chunked_attention
from .full_width import full_width_attention
from .plain import plain_attention

Mode = Literal["auto", "chunked", "full_width"]

# The widest heads that PyTorch's flash attention takes.
_FLASH_WIDTH = 256


@traceable
def talking_heads_attention(
    qkv: Tensor,
    pre_weight: Tensor,
    pre_bias: Tensor | None,
    post_weight: Tensor,
    post_bias: Tensor | None,
    *,
    overlap: int = 0,
    dropout_p: float = 0.0,
    scale: float | None = None,
    borrow_gain: Tensor | None = None,
    mode: Mode = "auto",
) -> Tensor:
    """Attention whose heads are mixed before and after the softmax, and may overlap their neighbours.

    Talking heads as CaiT has them (arXiv 2003.02436, arXiv 2103.17239) on the overlapped heads of MOHSA (arXiv
    2410.14874); the equations are in ``naive.py``. Neither path's memory grows with N²: "chunked" forms the attention
    matrices a block at a time and again in the backward pass; "full_width" asks PyTorch's fused attention for every
    head over all channels, which costs h times the arithmetic.

    Args:
        qkv: packed queries, keys and values (B, N, 3, h, d), as one projection gives them.
        pre_weight: shares (h, h) of the heads' logits in each mixed head, rows mixed heads, as ``nn.Linear`` has them.
        pre_bias: (h,) added to the mixed logits, or None. The softmax cancels it: its gradient is zero.
        post_weight: shares (h, h) of the heads' attention weights in each mixed head.
        post_bias: (h,) added to the mixed attention weights, or None.
        overlap: borrowed channels a side, 0 to d.
        dropout_p: the share of mixed attention weights that is dropped. Give 0 in evaluation.
        scale: factor of the logits; d^(-1/2) by default, the width before overlapping.
        borrow_gain: factors (h, 2·overlap) of the borrowed channels of the queries, as in ``overlapped_attention``.
        mode: "chunked", "full_width" (no dropout there), or "auto": the faster one.

    Returns:
        The heads side by side (B, N, h·(d + 2·overlap)), ready for the projection.

    Raises:
        ValueError: for sizes that do not fit, an unknown mode, or dropout in "full_width".
    """
    _, _, num_heads, head_dim = check_packed(qkv)
    check_mixing(num_heads, pre_weight, pre_bias, post_weight, post_bias)
    check_overlap(overlap, head_dim)
    check_dropout(dropout_p)
    if borrow_gain is not None:
        check_gain(borrow_gain, num_heads, overlap)
    qkv = autocast_to(qkv)
    chosen = _choose(mode, qkv, dropout_p)
    scale = head_dim**-0.5 if scale is None else scale
    if pre_bias is not None:
        # It cancels in the softmax. It stays in the graph, so that its gradient is zero and not missing.
        pre_weight = pre_weight + 0.0 * pre_bias.unsqueeze(1)
    if post_bias is None:
        post_bias = post_weight.new_zeros(num_heads)

    transformed = is_transformed(qkv, pre_weight, post_weight, post_bias, borrow_gain)
    post, bias = post_weight.to(qkv.dtype), post_bias.to(qkv.dtype)
    if chosen == "full_width" and not transformed:
        pre = (pre_weight * scale).to(qkv.dtype)
        return full_width_attention(qkv, pre, post, bias, overlap, borrow_gain)
    pre = pre_weight.to(qkv.dtype)
    q, k, v = overlapped_heads(qkv, overlap)
    q = scale_borrowed(q, borrow_gain, head_dim, overlap)
    if transformed:
        drop = partial(torch.dropout, p=dropout_p, train=True)
        return plain_attention(q, k, v, pre, post, bias, scale, drop).flatten(2)
    return chunked_attention(q, k, v, pre, post, bias, scale, dropout_p).flatten(2)


def _choose(mode: str, qkv: Tensor, dropout_p: float) -> str:
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    if mode == "full_width" and dropout_p > 0:
        raise ValueError(
            f"mode 'full_width' never forms the mixed weights and cannot drop {dropout_p} of them; "
            "use mode 'chunked' or dropout_p=0"
        )
    if mode != "auto" or dropout_p > 0:
        return "chunked" if mode == "auto" else mode
    if torch.compiler.is_exporting():
        return "full_width"  # nothing but PyTorch's own operators
    num_heads, head_dim = qkv.shape[3:]
    half = qkv.dtype in (torch.bfloat16, torch.float16)
    flash = qkv.device.type != "cpu" and half and num_heads * head_dim <= _FLASH_WIDTH
    return "full_width" if flash else "chunked"

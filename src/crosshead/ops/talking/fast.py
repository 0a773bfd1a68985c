"""Talking-heads attention as the library uses it: the choice between its fast paths."""

from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..checks import (
    check_bias,
    check_dropout,
    check_gain,
    check_mask,
    check_mixing,
    check_overlap,
    check_packed,
    check_self_attention,
    stack_heads,
)
from ..modes import autocast_to, is_transformed, traceable
from ..overlap.views import overlapped_heads, scale_borrowed
from ..paths import HAS_TRITON, Conditions, talking_path
from ..renamed import took_packed
from .chunked import chunked_attention
from .full_width import full_width_attention
from .math import attention_with, plain_attention

Backend = Literal["auto", "chunked", "full_width", "triton", "math"]


def packed_attention(
    qkv: Tensor,
    pre_weight: Tensor,
    pre_bias: Tensor | None,
    post_weight: Tensor,
    post_bias: Tensor | None,
    *,
    overlap: int = 0,
    scale: float | None = None,
    dropout_p: float = 0.0,
    borrow_gain: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """``talking_heads_attention`` of packed qkv (B, N, 3, h, d), as one projection gives them, without bias and mask:
    (B, N, h·(d + 2·overlap)), the heads side by side, ready for the next projection."""
    _, _, num_heads, head_dim = check_packed(qkv)
    check_mixing(num_heads, pre_weight, pre_bias, post_weight, post_bias)
    check_overlap(overlap, head_dim)
    check_dropout(dropout_p)
    if borrow_gain is not None:
        check_gain(borrow_gain, num_heads, overlap)
    qkv = autocast_to(qkv)
    chosen = _choose(backend, qkv, dropout_p)
    scale = head_dim**-0.5 if scale is None else scale
    pre_weight = _with_bias(pre_weight, pre_bias)
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
    if chosen == "triton" and not transformed:
        return _fused(q, k, v, pre_weight, post_weight, post_bias, scale, dropout_p=dropout_p).flatten(2)
    if transformed or chosen == "math":
        drop = partial(torch.dropout, p=dropout_p, train=True)
        return plain_attention(q, k, v, pre, post, bias, scale, drop).flatten(2)
    return chunked_attention(q, k, v, pre, post, bias, scale, dropout_p).flatten(2)


@took_packed(packed_attention)
@traceable
def talking_heads_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    pre_bias: Tensor | None,
    post_weight: Tensor,
    post_bias: Tensor | None,
    *,
    overlap: int = 0,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    dropout_p: float = 0.0,
    borrow_gain: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Attention whose heads are mixed before and after the softmax, and may overlap their neighbours.

    Talking heads as CaiT has them (arXiv 2003.02436, arXiv 2103.17239) on the overlapped heads of MOHSA (arXiv
    2410.14874); the equations are in ``naive.py``. Without a bias or a mask, and in ``triton``, memory does not grow
    with N², but for a bias that learns.

    Args:
        q, k, v: (B, h, N, d), any strides.
        pre_weight: shares (h, h) of the heads' logits in each mixed head, rows mixed heads, as ``nn.Linear`` has them.
        pre_bias: (h,) added to the mixed logits, or None. The softmax cancels it: its gradient is zero.
        post_weight: shares (h, h) of the heads' attention weights in each mixed head.
        post_bias: (h,) added to the mixed attention weights, or None.
        overlap: borrowed channels a side, 0 to d.
        attn_mask: boolean (True takes part) or additive, broadcastable to (B, 1, N, N), alike for all heads; it joins
            the mixed logits. A query with no key left attends to nothing.
        attn_bias: broadcastable to (B, h, N, N); part of a head's logits, and mixed with them. It may learn.
        is_causal: each token attends to itself and those before it.
        scale: factor of the logits; d^(-1/2) by default, the width before overlapping.
        dropout_p: the share of mixed attention weights that is dropped. Give 0 in evaluation.
        borrow_gain: factors (h, 2·overlap) of the borrowed channels of the queries, as in ``overlapped_attention``.
        backend: ``chunked`` forms the attention matrices a block at a time and again in the backward pass;
            ``full_width`` asks PyTorch's fused attention for every head over all channels, which costs h times the
            arithmetic (no dropout there); ``triton`` is a fused GPU kernel a pass for up to 16 heads, with bias, mask
            and dropout, which has not been timed on a GPU yet; ``math`` keeps (B, h, N, N), takes a bias and a
            mask, and serves under ``torch.func`` and forward-mode differentiation whatever is asked for; ``auto`` takes
            the fastest that can of the others.

    Returns:
        The heads (B, h, N, d + 2·overlap); under autocast in autocast's dtype.

    Raises:
        ValueError: for sizes that do not fit, or a backend that can't serve.
    """
    batch, num_heads, tokens, _ = shape = check_self_attention(q, k, v)
    check_mask(attn_mask, (batch, 1, tokens, tokens))
    check_bias(attn_bias, shape)
    qkv, mixing = stack_heads(q, k, v), (pre_weight, pre_bias, post_weight, post_bias)
    if attn_mask is None and attn_bias is None and not is_causal:
        out = packed_attention(
            qkv,
            *mixing,
            overlap=overlap,
            scale=scale,
            dropout_p=dropout_p,
            borrow_gain=borrow_gain,
            backend=backend,
        )
        found: Tensor = out.unflatten(2, (num_heads, -1)).transpose(1, 2)
        return found
    if backend not in ("auto", "triton", "math"):
        _choose(backend, qkv, dropout_p)
        raise ValueError(f"backend={backend!r} takes no bias, mask or causality; use backend='auto'")
    check_mixing(num_heads, *mixing)
    check_dropout(dropout_p)
    head_dim = q.shape[-1]
    check_overlap(overlap, head_dim)
    queries, keys, values = overlapped_heads(autocast_to(qkv), overlap)
    queries = scale_borrowed(queries, borrow_gain, head_dim, overlap)
    scale = head_dim**-0.5 if scale is None else scale
    added: dict[str, Any] = dict(attn_mask=attn_mask, attn_bias=attn_bias, is_causal=is_causal)
    if backend == "triton" and not is_transformed(qkv, attn_mask, attn_bias, borrow_gain, *mixing):
        pre_weight = _with_bias(pre_weight, pre_bias)
        post_bias = post_weight.new_zeros(num_heads) if post_bias is None else post_bias
        operands = (queries, keys, values, pre_weight, post_weight, post_bias)
        return _fused(*operands, scale, dropout_p=dropout_p, **added).transpose(1, 2)
    out = attention_with(queries, keys, values, *mixing, **added, scale=scale, dropout_p=dropout_p)
    return out.transpose(1, 2)


def _with_bias(pre_weight: Tensor, pre_bias: Tensor | None) -> Tensor:
    """The bias before the softmax cancels in it. It stays in the graph: its gradient is zero, and not missing."""
    return pre_weight if pre_bias is None else pre_weight + 0.0 * pre_bias.unsqueeze(1)


def _fused(q: Tensor, *operands: Any, **more: Any) -> Tensor:
    """``attend_fused`` of a file that needs Triton."""
    if not HAS_TRITON:
        raise ValueError("backend='triton' needs Triton, which is not installed; use backend='auto'")
    from .triton_operator import attend_fused

    return attend_fused(q, *operands, **more)


def _choose(backend: str, qkv: Tensor, dropout_p: float) -> str:
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    if backend == "full_width" and dropout_p > 0:
        raise ValueError(
            f"backend 'full_width' never forms the mixed weights and cannot drop {dropout_p} of them; "
            "use backend 'chunked' or dropout_p=0"
        )
    if backend != "auto":
        return backend
    num_heads, head_dim = qkv.shape[3:]
    return talking_path(Conditions.of(qkv), num_heads, head_dim, dropout_p)

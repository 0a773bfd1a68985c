"""Interleaved heads as the library uses them: products that mix heads around PyTorch's fused attention."""

from typing import Literal, get_args

import torch
from torch import Tensor

from ..checks import check_dropout
from ..modes import is_transformed, traceable
from ..sdpa import fused_attention, joined_mask, plain_attention
from .arguments import check_interleaved

Backend = Literal["auto", "sdpa", "math"]


@traceable
def interleaved_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mix_query: Tensor,
    mix_key: Tensor,
    mix_value: Tensor,
    collapse: Tensor,
    *,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    dropout_p: float = 0.0,
    backend: Backend = "auto",
) -> Tensor:
    """Attention among pseudo-heads that are mixtures of all heads (IHA, arXiv 2602.21371).

    Every query of a head's P pseudo-heads attends to the keys of all P, so the attention is of P·N tokens; no such map
    is kept. Time grows with (P·N)².

    Args:
        q, k, v: (B, h, N, d), any strides.
        mix_query, mix_key, mix_value: (h, h, P): ``[m, g, p]`` is the share of head m in pseudo-head p of head g.
        collapse: (h, h, P): ``[g, m, p]`` is the share of pseudo-head p of head m in output head g.
        attn_mask: boolean (True takes part) or additive, broadcastable to (B, h, N, N): for every pair of
            pseudo-heads. A query with no key left attends to nothing.
        attn_bias: added to the logits, broadcastable to (B, h, N, N), likewise.
        is_causal: each token attends to itself and those before it, in all pseudo-heads. Excludes ``attn_mask``; with
            more than one pseudo-head it becomes a mask (P·N, P·N), once for all heads.
        scale: factor of the logits; d^(-1/2) by default.
        dropout_p: the share of attention weights that is dropped. Give 0 in evaluation.
        backend: ``sdpa`` is PyTorch's fused attention; ``math`` its differentiable functions alone, which also serve
            under ``torch.func`` and forward-mode differentiation whatever is asked for; ``auto`` chooses.

    Returns:
        (B, h, N, d); under autocast in autocast's dtype.

    Raises:
        ValueError: for operands or a mask that do not fit.
    """
    check_interleaved(q, k, v, mix_query, mix_key, mix_value, collapse, attn_mask, attn_bias, is_causal)
    check_dropout(dropout_p)
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    return attend_pseudo_heads(
        pseudo_heads(q, mix_query),
        pseudo_heads(k, mix_key),
        pseudo_heads(v, mix_value),
        collapse,
        attn_mask=joined_mask(attn_bias, attn_mask, is_causal, q.shape[2]),
        is_causal=is_causal and attn_bias is None,
        scale=q.shape[3] ** -0.5 if scale is None else scale,
        dropout_p=dropout_p,
        backend=backend,
    )


def pseudo_heads(x: Tensor, mix: Tensor) -> Tensor:
    """Mixtures (B, h, P, N, d) of heads (B, h, N, d): one matrix product, whose rows are a head's tokens."""
    batch, num_heads, tokens, width = x.shape
    shares = mix.to(x.dtype).permute(1, 2, 0).reshape(-1, num_heads)
    mixed = shares @ x.reshape(batch, num_heads, tokens * width)
    return mixed.view(batch, num_heads, mix.shape[2], tokens, width)


def attend_pseudo_heads(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    collapse: Tensor,
    *,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float,
    dropout_p: float,
    backend: Backend = "auto",
) -> Tensor:
    """The heads (B, h, N, d) that come of pseudo-heads (B, h, P, N, d); masks and causality are those of N tokens."""
    batch, num_heads, num_pseudo, tokens, _ = q.shape
    width = v.shape[-1]
    if num_pseudo > 1 and is_causal:
        attn_mask, is_causal = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).tril(), False
    if attn_mask is not None:
        attn_mask = _for_every_pair(attn_mask, num_pseudo)
        attn_mask = attn_mask if attn_mask.dtype == torch.bool else attn_mask.to(q.dtype)
    plain = backend == "math" or is_transformed(q, k, v, collapse, attn_mask)
    attend = plain_attention if plain else fused_attention
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    out = attend(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)
    out = out.reshape(batch, num_heads * num_pseudo, tokens * width)
    return (collapse.to(out.dtype).flatten(1) @ out).view(batch, num_heads, tokens, width)


def _for_every_pair(mask: Tensor, num_pseudo: int) -> Tensor:
    """What is added to (N, N) logits as it is added to (P·N, P·N) ones; axes of length 1 stay shared."""
    mask = torch.atleast_2d(mask)
    times = [num_pseudo if size > 1 else 1 for size in mask.shape[-2:]]
    return mask.repeat(*[1] * (mask.dim() - 2), *times)

"""Overlapped-head attention, written as its equations (MOHSA, arXiv 2410.14874, section 3).

With h heads of width d and an overlap of o channels a side::

    X'_i = [ last o of X_{i-1} | X_i | first o of X_{i+1} ]        for X in {Q, K, V}, zeros beyond the end heads
    A_i  = softmax(Q'_i K'_i^T s + mask)                           s = d^(-1/2), the width before overlapping
    O    = [ A_1 V'_1 | ... | A_h V'_h ]

It runs in the precision of its input on any device, and is the oracle of the fast path.
"""

import torch
from torch import Tensor

from ..checks import check_dropout, check_gain, check_mask, check_overlap, check_packed
from ..tracing import traceable


def naive_overlap(heads: Tensor, overlap: int) -> Tensor:
    """Every head between the ends of its neighbours: (B, N, h, d) -> (B, N, h, d + 2·overlap)."""
    check_overlap(overlap, heads.shape[-1])
    if overlap == 0:
        return heads
    num_heads, head_dim = heads.shape[-2:]
    nothing = torch.zeros_like(heads[..., 0, :overlap])
    windows = []
    for i in range(num_heads):
        before = heads[..., i - 1, head_dim - overlap :] if i > 0 else nothing
        after = heads[..., i + 1, :overlap] if i < num_heads - 1 else nothing
        windows.append(torch.cat([before, heads[..., i, :], after], dim=-1))
    return torch.stack(windows, dim=-2)


def naive_overlapped_attention(
    qkv: Tensor,
    overlap: int,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    scale: float | None = None,
    borrow_gain: Tensor | None = None,
) -> Tensor:
    """The equations above; arguments and result as ``overlapped_attention``."""
    v, weights = _attend(qkv, overlap, attn_mask, is_causal, scale, borrow_gain)
    weights = torch.dropout(weights, check_dropout(dropout_p), train=True)
    return (weights @ v).transpose(1, 2).flatten(2)


@traceable
def overlapped_attention_weights(
    qkv: Tensor,
    overlap: int,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    borrow_gain: Tensor | None = None,
) -> Tensor:
    """The attention weights A (B, h, N, N) themselves, for analysis; arguments as ``overlapped_attention``."""
    return _attend(qkv, overlap, attn_mask, is_causal, scale, borrow_gain)[1]


def _attend(
    qkv: Tensor,
    overlap: int,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    borrow_gain: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """V' (B, h, N, d + 2o) and A (B, h, N, N)."""
    _, _, num_heads, head_dim = check_packed(qkv)
    q, k, v = (naive_overlap(x, overlap).transpose(1, 2) for x in qkv.unbind(2))
    if borrow_gain is not None:
        q = q * spread_gain(borrow_gain, num_heads, head_dim, overlap)
    # Q is scaled, not the logits: in half precision unscaled ones overflow.
    logits = (q * (head_dim**-0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    logits = logits + mask_as_bias(check_mask(attn_mask, logits.shape), is_causal, logits)
    # A query with no key left attends to nothing, as in scaled_dot_product_attention.
    dead = (logits == -torch.inf).all(dim=-1, keepdim=True)
    weights = logits.masked_fill(dead, 0.0).softmax(dim=-1).masked_fill(dead, 0.0)
    return v, weights


def mask_as_bias(attn_mask: Tensor | None, is_causal: bool, logits: Tensor) -> Tensor:
    """What the masks add to the logits: 0 where a key takes part, -inf where not."""
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask and is_causal exclude each other; put the causal part into attn_mask")
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if attn_mask is None:
        return logits.new_zeros(())
    if attn_mask.dtype == torch.bool:
        return logits.new_zeros(attn_mask.shape).masked_fill(~attn_mask, -torch.inf)
    return attn_mask.to(logits.dtype)


def spread_gain(borrow_gain: Tensor, num_heads: int, head_dim: int, overlap: int) -> Tensor:
    """The factors of Q' (h, 1, d + 2·overlap): 1 for a head's own channels, ``borrow_gain`` (h, 2·overlap) around."""
    check_gain(borrow_gain, num_heads, overlap)
    own = borrow_gain.new_ones(num_heads, head_dim)
    return torch.cat([borrow_gain[:, :overlap], own, borrow_gain[:, overlap:]], dim=-1).unsqueeze(1)

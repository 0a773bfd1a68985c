"""Plain attention, written as its equation, for chosen queries: what the operators' oracles share, and what those use
who look at weights.

    A = softmax(Q K^T s + B + M)        B a bias, M a mask; a query with no key left attends to nothing

Nothing of size N² is formed where a few queries are chosen.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def rows_of(x: Tensor, queries: Sequence[int] | None) -> Tensor:
    """The rows of some queries of what broadcasts to (B, h, N, N); all of them where None."""
    if queries is None or x.dim() < 2 or x.shape[-2] == 1:
        return x
    return x[..., list(queries), :]


def logits_of(
    q: Tensor,
    k: Tensor,
    *,
    attn_bias: Tensor | None = None,
    scale: float,
    queries: Sequence[int] | None = None,
) -> Tensor:
    """Logits (B, h, len(queries), N) of q and k (B, h, N, c), with their bias."""
    # Q is scaled, not the logits: in half precision unscaled ones overflow.
    logits = (rows_of(q, queries) * scale) @ k.transpose(-2, -1)
    return logits if attn_bias is None else logits + rows_of(attn_bias, queries).to(logits.dtype)


def masked(
    logits: Tensor,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    queries: Sequence[int] | None = None,
) -> Tensor:
    """``logits`` with the rows of a mask, boolean (True takes part) or additive, and of causality; -inf closes."""
    if attn_mask is not None:
        rows = rows_of(attn_mask, queries)
        boolean = rows.dtype == torch.bool
        logits = logits.masked_fill(~rows, -torch.inf) if boolean else logits + rows.to(logits.dtype)
    if is_causal:
        key = torch.arange(logits.shape[-1], device=logits.device)
        query = key if queries is None else torch.as_tensor(list(queries), device=logits.device)
        logits = logits.masked_fill(key > query.unsqueeze(1), -torch.inf)
    return logits


def softmax_or_zero(logits: Tensor) -> Tensor:
    """The softmax over keys; a query with no key left attends to nothing, as in scaled_dot_product_attention."""
    dead = (logits == -torch.inf).all(dim=-1, keepdim=True)
    return logits.masked_fill(dead, 0.0).softmax(dim=-1).masked_fill(dead, 0.0)

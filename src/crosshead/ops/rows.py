"""Rows of attention, for those who want to look at it: the chosen queries' alone, without anything of size N²."""

from collections.abc import Sequence

import torch
from torch import Tensor


def rows_of(x: Tensor, queries: Sequence[int]) -> Tensor:
    """Those rows of an addend that broadcasts to (B, h, N, N)."""
    return x if x.dim() < 2 or x.shape[-2] == 1 else x[..., list(queries), :]


def logits_of(q: Tensor, k: Tensor, scale: float, queries: Sequence[int]) -> Tensor:
    """Logits (B, h, len(queries), N) of q and k (B, h, N, c), before anything is added to them."""
    return (q[:, :, list(queries)] * scale) @ k.mT


def added(
    logits: Tensor, bias: Tensor | None, is_causal: bool, queries: Sequence[int], mask: Tensor | None = None
) -> Tensor:
    """``logits`` with the rows of a bias, of a mask (boolean, True takes part, or additive), and of causality."""
    for addend in (bias, mask):
        if addend is None:
            continue
        rows = rows_of(addend, queries)
        is_boolean = rows.dtype == torch.bool
        logits = logits.masked_fill(~rows, -torch.inf) if is_boolean else logits + rows.to(logits.dtype)
    if is_causal:
        key = torch.arange(logits.shape[-1], device=logits.device)
        after = key > torch.as_tensor(list(queries), device=logits.device).unsqueeze(1)
        logits = logits.masked_fill(after, -torch.inf)
    return logits


def softmax_or_zero(logits: Tensor) -> Tensor:
    """The softmax over keys; a query with no key left attends to nothing, as in scaled_dot_product_attention."""
    dead = (logits == -torch.inf).all(dim=-1, keepdim=True)
    return logits.masked_fill(dead, 0.0).softmax(dim=-1).masked_fill(dead, 0.0)

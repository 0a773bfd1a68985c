"""Dynamically composable multi-head attention, written as its equations (DCMHA, arXiv 2405.08553, section 3).

With h heads, N tokens x, R = 2 factors, and for each of (query, key) and each of (before, after the softmax)::

    w1, w2  = split(GELU(x W1) W2)                   R vectors over the heads each; w1 / rms(w1) over the heads
    w_g     = tanh(x W_g)                            one number a head
    A'_g[t, s] = A_g[t, s] + sum_i W_b[g, i] A_i[t, s]
               + sum_r w2_q[t, r, g] (sum_i w1_q[t, r, i] A_i[t, s]) + w_gq[t, g] A_g[t, s]
               + sum_r w2_k[s, r, g] (sum_i w1_k[s, r, i] A_i[t, s]) + w_gk[s, g] A_g[t, s]

applied to A = Q K^T s + bias before the softmax, to its result after it; then O_g = A'_g V_g. A mask joins the composed
logits. It runs in the precision of its input on any device, and is the oracle of the fast path.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..naive import rows_of
from .arguments import check_composition


def naive_composed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x: Tensor,
    hidden_weight: Tensor,
    factor_weight: Tensor,
    diagonal_weight: Tensor,
    pre_weight: Tensor | None = None,
    post_weight: Tensor | None = None,
    *,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    sources: Tensor | None = None,
) -> Tensor:
    """The equations above; arguments and result as ``composed_attention``."""
    weights = composed_attention_weights(
        q,
        k,
        v,
        x,
        hidden_weight,
        factor_weight,
        diagonal_weight,
        pre_weight,
        post_weight,
        attn_bias=attn_bias,
        attn_mask=attn_mask,
        dropout_p=dropout_p,
        scale=scale,
        sources=sources,
    )
    return weights @ v


def composed_attention_weights(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x: Tensor,
    hidden_weight: Tensor,
    factor_weight: Tensor,
    diagonal_weight: Tensor,
    pre_weight: Tensor | None = None,
    post_weight: Tensor | None = None,
    *,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    queries: Sequence[int] | None = None,
    sources: Tensor | None = None,
) -> Tensor:
    """The weights A' that meet V, for analysis: rows need not sum to one, nor be positive.

    (B, h, len(queries), N): all rows unless ``queries`` names some. Otherwise as ``composed_attention``.
    """
    check_composition(
        q,
        k,
        v,
        x,
        hidden_weight,
        factor_weight,
        diagonal_weight,
        pre_weight,
        post_weight,
        attn_bias,
        attn_mask,
        dropout_p,
        sources,
    )
    hidden = F.gelu((x @ hidden_weight.t()).unflatten(-1, (4, -1)))
    first, second = torch.einsum("bnck,ckrg->bncrg", hidden, factor_weight).chunk(2, dim=3)
    first = first * torch.rsqrt(first.square().mean(-1, keepdim=True) + 1e-6)
    diagonal = torch.tanh(x @ diagonal_weight.t()).unflatten(-1, (4, -1))

    rows = list(range(q.shape[2]) if queries is None else queries)
    q, attn_bias, attn_mask = rows_of(q, rows), _rows_of(attn_bias, rows), _rows_of(attn_mask, rows)
    # The four in turn: before the softmax by query and by key, after it by query and by key.
    four = [(first[:, :, i], second[:, :, i], diagonal[:, :, i]) for i in range(4)]
    pre_query, post_query = ((w1[:, rows], w2[:, rows], w[:, rows]) for w1, w2, w in (four[0], four[2]))
    pre_key, post_key = four[1], four[3]
    logits = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    if attn_bias is not None:
        logits = logits + attn_bias
    if sources is not None:
        logits = logits * sources[:, None, None]
    logits = _compose(logits, pre_query, pre_key, pre_weight)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=logits.dtype).masked_fill(~attn_mask, -torch.inf)
    if attn_mask is not None:
        logits = logits + attn_mask.to(logits.dtype)
    # A query with no key left attends to nothing, as in scaled_dot_product_attention.
    dead = (logits == -torch.inf).all(dim=-1, keepdim=True)
    weights = logits.masked_fill(dead, 0.0).softmax(dim=-1).masked_fill(dead, 0.0)
    weights = torch.dropout(weights, dropout_p, train=True)
    if sources is not None:
        weights = weights * sources[:, None, None]
    return _compose(weights, post_query, post_key, post_weight)


Dynamic = tuple[Tensor, Tensor, Tensor]  # factors (B, N, R, h), first and second, and diagonals (B, N, h)


def _compose(a: Tensor, at_queries: Dynamic, at_keys: Dynamic, static: Tensor | None) -> Tensor:
    """A' of a (B, h, N, N)."""
    composed = a
    if static is not None:
        composed = composed + torch.einsum("bits,gi->bgts", a, static)
    first, second, diagonal = at_queries
    summed = torch.einsum("bits,btri->brts", a, first)
    composed = composed + torch.einsum("brts,btrg->bgts", summed, second)
    composed = composed + torch.einsum("bgts,btg->bgts", a, diagonal)
    first, second, diagonal = at_keys
    summed = torch.einsum("bits,bsri->brts", a, first)
    composed = composed + torch.einsum("brts,bsrg->bgts", summed, second)
    return composed + torch.einsum("bgts,bsg->bgts", a, diagonal)


def _rows_of(added: Tensor | None, rows: Sequence[int]) -> Tensor | None:
    return None if added is None else rows_of(added, rows)

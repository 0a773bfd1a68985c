"""Interleaved heads, written as their equations (IHA, arXiv 2602.21371). With h heads and P pseudo-heads of each::

    Q~_gp = sum_m a^Q[m, g, p] Q_m,   K~_gp and V~_gp likewise with a^K and a^V
    A_g   = softmax([Q~_g1; ...; Q~_gP] [K~_g1; ...; K~_gP]^T s + B + M)      tokens one after the other: (P·N, P·N)
    O~_g  = A_g [V~_g1; ...; V~_gP]
    O_g   = sum_(m, p) R[g, m, p] O~_mp

B and M are those of the tokens, whatever the pseudo-head of the query and of the key; causality likewise. It runs in
the precision of its input on any device, and is the oracle of the fast path.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_dropout, check_indices
from ..modes import traceable
from ..naive import masked, rows_of, softmax_or_zero
from .arguments import check_interleaved


def naive_interleaved_attention(
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
) -> Tensor:
    """The equations above; arguments and result as ``interleaved_attention``."""
    check_interleaved(q, k, v, mix_query, mix_key, mix_value, collapse, attn_mask, attn_bias, is_causal)
    check_dropout(dropout_p)
    q, k, v = (
        torch.einsum("mgp,bmnd->bgpnd", mix, x) for mix, x in ((mix_query, q), (mix_key, k), (mix_value, v))
    )
    weights = pseudo_weights(q, k, attn_mask, attn_bias, is_causal, scale)
    out = torch.einsum("bgpnrt,bgrtd->bgpnd", torch.dropout(weights, dropout_p, train=True), v)
    return torch.einsum("gmp,bmpnd->bgnd", collapse, out)


def pseudo_weights(
    q: Tensor,
    k: Tensor,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    queries: Sequence[int] | None = None,
) -> Tensor:
    """A of queries and keys (B, h, P, N, d): (B, h, P, len(queries), P, N), from pseudo-head to pseudo-head."""
    num_pseudo, tokens, width = k.shape[2:]
    scale = width**-0.5 if scale is None else scale
    pairs = []
    for p in range(num_pseudo):
        asked = rows_of(q[:, :, p], queries) * scale
        for r in range(num_pseudo):
            logits = asked @ k[:, :, r].mT
            if attn_bias is not None:
                logits = logits + rows_of(attn_bias, queries).to(logits.dtype)
            pairs.append(masked(logits, attn_mask=attn_mask, is_causal=is_causal, queries=queries))
    # (B, h, P, queries, P, N), and the softmax over all keys of all pseudo-heads.
    logits = torch.stack(pairs, dim=2).unflatten(2, (num_pseudo, num_pseudo)).transpose(3, 4)
    out: Tensor = softmax_or_zero(logits.flatten(4)).unflatten(4, (num_pseudo, tokens))
    return out


@traceable
def interleaved_attention_weights(
    q: Tensor,
    k: Tensor,
    mix_query: Tensor,
    mix_key: Tensor,
    mix_value: Tensor,
    collapse: Tensor,
    *,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    queries: Sequence[int] | None = None,
) -> Tensor:
    """What head g takes of a token, for analysis, (B, h, len(queries), N): the shares of all heads' values in one sum.

        W_g[n, t] = sum_(m, p, r) R[g, m, p] A_m[(n, p), (t, r)] sum_i a^V[i, m, r]

    Where all heads have the same values it is what they are multiplied by; else each head's have shares of their own.
    """
    check_interleaved(q, k, k, mix_query, mix_key, mix_value, collapse, attn_mask, attn_bias, is_causal)
    picked = check_indices("queries", queries, q.shape[2])
    q, k = (torch.einsum("mgp,bmnd->bgpnd", mix, x) for mix, x in ((mix_query, q), (mix_key, k)))
    weights = pseudo_weights(q, k, attn_mask, attn_bias, is_causal, scale, picked)
    return taken(weights, mix_value, collapse)


def taken(weights: Tensor, mix_value: Tensor, collapse: Tensor) -> Tensor:
    """W (B, h, queries, N) of the weights (B, h, P, queries, P, N) from pseudo-head to pseudo-head."""
    each = torch.einsum("bmpnrt,mr->bmpnt", weights, mix_value.sum(0).to(weights.dtype))
    return torch.einsum("gmp,bmpnt->bgnt", collapse.to(weights.dtype), each)

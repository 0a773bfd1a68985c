"""The attention that the fast path never forms, for those who want to look at it; and attention under padding.

Where some tokens are padding, nobody attends to them, and no landmark averages over them::

    q̃, k̃ = the mean of a cell over its tokens that take part; a cell without any is no landmark
    A_Q    = softmax over those landmarks,   A_K = softmax over the tokens that take part
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_indices
from ..tracing import traceable
from .arguments import Geometry, check_operands, check_padding, check_tokens
from .landmarks import pool_landmarks


class AttentionFactors(NamedTuple):
    """A_Q (B, heads, N, L) and A_K (B, heads, L, N), and both after the heads were mixed; float32 or better."""

    query: Tensor
    key: Tensor
    mixed_query: Tensor
    mixed_key: Tensor

    def effective_map(
        self, heads: Sequence[int] | None = None, queries: Sequence[int] | None = None
    ) -> Tensor:
        """Rows of the (N, N) map Â_Q Â_K that acts on V: (B, len(heads), len(queries), N), all of them by default.

        Raises:
            ValueError: a head or a query that isn't there.
        """
        picked_heads = check_indices("heads", heads, self.query.shape[1])
        picked_queries = check_indices("queries", queries, self.query.shape[2])
        return self.mixed_query[:, picked_heads][:, :, picked_queries] @ self.mixed_key[:, picked_heads]


@traceable
def attention_factors(
    q: Tensor,
    k: Tensor,
    grid: tuple[int, int],
    *,
    landmarks: int | Sequence[int] = (7, 7),
    mix_query: Tensor | None = None,
    mix_key: Tensor | None = None,
    num_prefix_tokens: int = 0,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> AttentionFactors:
    """The two attention matrices and their mixed versions, linear in N; arguments as ``interactive_attention``."""
    check_operands(q, k, q, mix_query, mix_key)
    if attn_mask is not None:
        geometry = check_tokens(q.shape[2], grid, landmarks, num_prefix_tokens)
        return masked_factors(q, k, attn_mask, geometry, mix_query, mix_key, scale)
    geometry = check_tokens(q.shape[2], grid, landmarks, num_prefix_tokens)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    if q.dtype != torch.float64:
        q, k = q.float(), k.float()
    q_landmarks, k_landmarks = pool_landmarks(q, k, geometry)
    a_q = torch.softmax(q @ (k_landmarks * scale).mT, dim=-1)
    a_k = torch.softmax((q_landmarks * scale) @ k.mT, dim=-1)
    return AttentionFactors(a_q, a_k, _mixed(mix_query, a_q), _mixed(mix_key, a_k))


def _mixed(mix: Tensor | None, attention: Tensor) -> Tensor:
    if mix is None:
        return attention
    return (mix.to(attention.dtype) @ attention.flatten(2)).view(attention.shape)


def masked_factors(
    q: Tensor,
    k: Tensor,
    attn_mask: Tensor,
    geometry: Geometry,
    mix_query: Tensor | None,
    mix_key: Tensor | None,
    scale: float | None,
    dropout_p: float = 0.0,
) -> AttentionFactors:
    """A_Q and A_K under padding, before and after the heads were mixed; O is ``mixed_query @ (mixed_key @ v)``.

    What a token that doesn't take part asks for is undefined.
    """
    batch, _, tokens, head_dim = q.shape
    keys = check_padding(attn_mask, batch, tokens)
    scale = head_dim**-0.5 if scale is None else scale
    part = keys[:, None, :, None].to(q.dtype)
    q_sum, k_sum = pool_landmarks(q * part, k * part, geometry)
    share = pool_landmarks(part, part, geometry)[0]
    there = share > 0
    share = share.masked_fill(~there, 1.0)
    a_q = _softmax((q @ (k_sum / share * scale).mT), there.transpose(2, 3))
    a_k = _softmax(((q_sum / share * scale) @ k.mT), keys[:, None, None])
    a_q, a_k = F.dropout(a_q, dropout_p), F.dropout(a_k, dropout_p)
    return AttentionFactors(a_q, a_k, _mixed(mix_query, a_q), _mixed(mix_key, a_k))


def _softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """Over what is allowed; zeros where nothing is."""
    dead = ~allowed.any(dim=-1, keepdim=True)
    hidden = ~allowed & ~dead
    return logits.masked_fill(hidden, -torch.inf).softmax(dim=-1).masked_fill(dead, 0.0)

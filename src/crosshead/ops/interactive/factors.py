"""The attention that the fast path never forms, for those who want to look at it; and attention under what is added.

Where some tokens are padding, nobody attends to them, and no landmark averages over them::

    q̃, k̃ = the mean of a cell over its tokens that take part; a cell without any is no landmark
    A_Q    = softmax over those landmarks,   A_K = softmax over the tokens that take part

Where a mask parts tokens, as between shifted windows, each part attends as though the others were padding. Where
positions rotate queries and keys, they are averaged before, and landmarks rotated to the middle of their cells. A bias
B is averaged as the keys are in the logits of A_Q, as the queries in those of A_K.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_indices
from ..modes import traceable
from .arguments import Geometry, Rotations, check_landmark_bias, check_operands, check_parts, check_tokens
from .landmarks import landmark_matrix, pool_landmarks


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
    attn_bias: Tensor | None = None,
    rotate: Rotations | None = None,
    scale: float | None = None,
) -> AttentionFactors:
    """The two attention matrices and their mixed versions, linear in N; arguments as ``interactive_attention``."""
    check_operands(q, k, q, mix_query, mix_key)
    geometry = check_tokens(q.shape[2], grid, landmarks, num_prefix_tokens)
    added: Any = {"attn_mask": attn_mask, "attn_bias": attn_bias, "rotate": rotate}
    if any(x is not None for x in added.values()):
        return added_factors(q, k, geometry, mix_query, mix_key, scale, **added)
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


def added_factors(
    q: Tensor,
    k: Tensor,
    geometry: Geometry,
    mix_query: Tensor | None,
    mix_key: Tensor | None,
    scale: float | None,
    dropout_p: float = 0.0,
    *,
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    rotate: Rotations | None = None,
) -> AttentionFactors:
    """A_Q and A_K under a mask, a bias or rotations, before and after the heads were mixed.

    O is ``mixed_query @ (mixed_key @ v)``. What a token that doesn't take part asks for is undefined. Where a mask
    parts tokens, there are landmarks of every cell for each of the P parts, P·L in all, of one part after the other.
    """
    batch, _, tokens, head_dim = q.shape
    scale = head_dim**-0.5 if scale is None else scale
    parts = None if attn_mask is None else check_parts(attn_mask, batch, tokens)
    pool = landmark_matrix(geometry, q)
    pool = pool.expand(1, 1, -1, -1) if parts is None else pool * parts.unsqueeze(2).to(q.dtype)
    share = pool.sum(-1, keepdim=True)  # of its cell that takes part
    there, num_parts = share > 0, pool.shape[1]
    pool = (pool / share.masked_fill(~there, 1.0)).flatten(1, 2).unsqueeze(1)  # (B or 1, 1, P·L, N)
    q_landmarks, k_landmarks = pool @ q, pool @ k
    if rotate is not None:
        of_tokens, of_landmarks = rotate
        dtype = q.dtype  # which rotations in float32 would widen
        q, k = of_tokens(q).to(dtype), of_tokens(k).to(dtype)
        q_landmarks, k_landmarks = (
            # One is not split: in ONNX that is an operation whose shapes its optimizer does not know.
            torch.cat([of_landmarks(part) for part in x.chunk(num_parts, dim=2)], dim=2).to(dtype)
            if num_parts > 1
            else of_landmarks(x).to(dtype)
            for x in (q_landmarks, k_landmarks)
        )
    to_landmarks, to_tokens = q @ (k_landmarks * scale).mT, (q_landmarks * scale) @ k.mT
    if attn_bias is not None:
        bias = check_landmark_bias(attn_bias, *q.shape[:3]).to(q.dtype)
        to_landmarks, to_tokens = to_landmarks + bias @ pool.mT, to_tokens + pool @ bias
    if parts is None:
        a_q, a_k = _softmax(to_landmarks), _softmax(to_tokens)
    else:
        of_part = parts.unsqueeze(2).expand(-1, -1, there.shape[2], -1)
        asks = of_part if num_parts > 1 else torch.ones_like(of_part)
        a_q = _softmax(to_landmarks, (asks & there).flatten(1, 2).unsqueeze(1).mT)
        a_k = _softmax(to_tokens, of_part.flatten(1, 2).unsqueeze(1))
    a_q, a_k = F.dropout(a_q, dropout_p), F.dropout(a_k, dropout_p)
    return AttentionFactors(a_q, a_k, _mixed(mix_query, a_q), _mixed(mix_key, a_k))


def _softmax(logits: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Over what is allowed; zeros where nothing is."""
    inside = torch.promote_types(logits.dtype, torch.float32)
    if allowed is None:
        return logits.softmax(dim=-1, dtype=inside).to(logits.dtype)
    dead = ~allowed.any(dim=-1, keepdim=True)
    hidden = ~allowed & ~dead
    weights = logits.masked_fill(hidden, -torch.inf).softmax(dim=-1, dtype=inside).to(logits.dtype)
    return weights.masked_fill(dead, 0.0)

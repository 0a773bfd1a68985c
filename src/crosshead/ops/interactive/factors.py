"""The attention that the fast path never forms, for those who want to look at it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_indices
from ..tracing import traceable
from .arguments import check_operands, check_tokens
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
    scale: float | None = None,
) -> AttentionFactors:
    """The two attention matrices and their mixed versions, linear in N; arguments as ``interactive_attention``."""
    check_operands(q, k, q, mix_query, mix_key)
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

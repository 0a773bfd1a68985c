"""Interactive attention where some tokens are padding: nobody attends to them, and no landmark averages over them.

    q̃, k̃ = the mean of a cell over its tokens that take part; a cell without any is no landmark
    A_Q    = softmax over those landmarks,   A_K = softmax over the tokens that take part

Everything else is as in ``naive.py``. It works in PyTorch's own operators and keeps (heads, N, L), as the stored form.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_dropout
from .arguments import check_operands, check_tokens
from .factors import AttentionFactors
from .landmarks import pool_landmarks


def masked_attention_factors(
    q: Tensor,
    k: Tensor,
    keys: Tensor,
    grid: tuple[int, int],
    *,
    landmarks: int | Sequence[int] = (7, 7),
    mix_query: Tensor | None = None,
    mix_key: Tensor | None = None,
    num_prefix_tokens: int = 0,
    scale: float | None = None,
    dropout_p: float = 0.0,
) -> AttentionFactors:
    """A_Q and A_K, before and after the heads were mixed; O is ``mixed_query @ (mixed_key @ v)``.

    Args:
        q, k: (B, heads, N, head_dim).
        keys: boolean (B or 1, N), True for the tokens that take part. What a token that doesn't asks for is undefined.
        dropout_p: of A_Q and A_K, before the heads are mixed.
        others: as ``interactive_attention``.

    Raises:
        ValueError: for a mask of another shape or dtype, and as ``interactive_attention``.
    """
    check_operands(q, k, k, mix_query, mix_key)
    check_dropout(dropout_p)
    batch, _, tokens, head_dim = q.shape
    if (
        keys.dtype != torch.bool
        or keys.dim() != 2
        or keys.shape[0] not in (1, batch)
        or keys.shape[1] != tokens
    ):
        raise ValueError(
            f"keys must be boolean of shape (batch or 1, tokens) = ({batch}, {tokens}), "
            f"got {keys.dtype}, {tuple(keys.shape)}"
        )
    geometry = check_tokens(tokens, grid, landmarks, num_prefix_tokens)
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


def _mixed(mix: Tensor | None, attention: Tensor) -> Tensor:
    return (
        attention if mix is None else (mix.to(attention.dtype) @ attention.flatten(2)).view(attention.shape)
    )

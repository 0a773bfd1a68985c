"""The reverse order in plain differentiable PyTorch: autograd keeps the (heads, N, L) matrices for the backward."""

import torch
from torch import Tensor
from torch.nn import functional as F


def attend_stored(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_landmarks: Tensor,
    k_landmarks: Tensor,
    mix_query: Tensor | None,
    mix_key: Tensor | None,
    scale: float,
    dropout_p: float,
) -> Tensor:
    """O = Â_Q (Â_K V), (B, heads, N, head_dim), from tokens of that shape and landmarks (B, heads, L, head_dim)."""
    # The scale goes onto the landmarks: they are few.
    a_q = softmax(flat(q), flat(k_landmarks * scale))
    a_k = softmax(flat(q_landmarks * scale), flat(k))
    a_q, a_k = F.dropout(a_q, dropout_p), F.dropout(a_k, dropout_p)
    context = torch.bmm(mix_heads(mix_key, a_k), flat(v))
    return torch.bmm(mix_heads(mix_query, a_q), context).view(q.shape)


def flat(x: Tensor) -> Tensor:
    """(B, heads, n, head_dim) as (B * heads, n, head_dim): a view for one image, whatever its strides."""
    return x[0] if x.shape[0] == 1 else x.flatten(0, 1)


def softmax(rows: Tensor, columns: Tensor) -> Tensor:
    """softmax(rows columnsᵀ) over the last axis, in float32 or better inside, in the input's dtype outside."""
    scores = torch.bmm(rows, columns.mT)
    inside = torch.float64 if scores.dtype == torch.float64 else torch.float32
    return torch.softmax(scores, dim=-1, dtype=inside).to(scores.dtype)


def mix_heads(mix: Tensor | None, attention: Tensor) -> Tensor:
    """Â[g] = Σ_i M[g, i] A[i] for (B * heads, n, m): the head axis outermost, one matrix product an image."""
    if mix is None:
        return attention
    heads = mix.shape[0]
    images = attention.shape[0] // heads
    if images == 1:
        return torch.mm(mix, attention.reshape(heads, -1)).view(attention.shape)
    return torch.bmm(mix.expand(images, -1, -1), attention.reshape(images, heads, -1)).view(attention.shape)

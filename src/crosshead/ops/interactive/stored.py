"""The reverse order in plain differentiable PyTorch: autograd keeps the (heads, N, L) matrices for the backward.

It is also the plain form, for what the other forms cannot follow (``ops/modes.py``).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .arguments import Geometry
from .landmarks import pool_landmarks


def pool_and_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mix_query: Tensor | None,
    mix_key: Tensor | None,
    scale: float,
    dropout_p: float,
    geometry: Geometry,
) -> Tensor:
    """The whole operator, O (B, heads, N, head_dim), of tokens of that shape."""
    return attend_stored(q, k, v, *pool_landmarks(q, k, geometry), mix_query, mix_key, scale, dropout_p)


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
    # The scale goes onto the landmarks: they are few. A_K first, and gone before A_Q comes where nothing is kept.
    mixed_key = mix_heads(mix_key, F.dropout(softmax(flat(q_landmarks * scale), flat(k)), dropout_p))
    context = torch.bmm(mixed_key, flat(v))
    del mixed_key
    mixed_query = mix_heads(mix_query, F.dropout(softmax(flat(q), flat(k_landmarks * scale)), dropout_p))
    return torch.bmm(mixed_query, context).view(q.shape)


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
    rows = attention.reshape(images, heads, attention.shape[1] * attention.shape[2])
    return torch.bmm(mix.expand(images, -1, -1), rows).view(attention.shape)


def mix_heads_into(mix: Tensor | None, attention: Tensor, out: Tensor) -> Tensor:
    """``mix_heads`` that writes to ``out``, of the shape of ``attention``, where there is something to mix."""
    if mix is None:
        return attention
    heads = mix.shape[0]
    rows, mixed = attention.view(-1, heads, attention[0].numel()), out.view(-1, heads, out[0].numel())
    if rows.shape[0] == 1:
        torch.mm(mix, rows[0], out=mixed[0])
    else:
        torch.bmm(mix.expand(rows.shape[0], -1, -1), rows, out=mixed)
    return out

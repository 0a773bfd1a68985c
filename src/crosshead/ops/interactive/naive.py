"""Interactive multi-head self-attention as the equations have it (arXiv 2402.17507, section 3): the oracle.

Everything is formed, the (N, N) map included, in the precision of the input.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import check_dropout
from ..naive import softmax_or_zero
from .arguments import Geometry, Rotations, check_landmark_bias, check_operands, check_parts, check_tokens


def naive_interactive_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
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
    dropout_p: float = 0.0,
) -> Tensor:
    """O = Â_Q Â_K V, (B, h, N, d); arguments and errors as ``interactive_attention`` has them."""
    check_operands(q, k, v, mix_query, mix_key)
    check_dropout(dropout_p)
    geometry = check_tokens(q.shape[2], grid, landmarks, num_prefix_tokens)
    if attn_mask is not None:
        check_parts(attn_mask, q.shape[0], q.shape[2])
        if attn_mask.shape[2] > 1:  # to a query all tokens but those of its part are padding
            given: dict[str, Any] = dict(
                landmarks=landmarks, mix_query=mix_query, mix_key=mix_key, attn_bias=attn_bias
            )
            given |= dict(
                num_prefix_tokens=num_prefix_tokens, rotate=rotate, scale=scale, dropout_p=dropout_p
            )
            rows = [
                naive_interactive_attention(q, k, v, grid, attn_mask=attn_mask[:, :, n : n + 1], **given)[
                    :, :, n
                ]
                for n in range(q.shape[2])
            ]
            return torch.stack(rows, dim=2)
    s = q.shape[3] ** -0.5 if scale is None else scale

    everyone = torch.ones_like(q[:1, :1, :, :1])
    # 1 for the tokens that take part (B or 1, 1, N, 1), and what share of each cell they are.
    part = everyone if attn_mask is None else attn_mask.mT.to(q.dtype)
    share = average_cells(part, geometry)
    counted = share.masked_fill(share == 0, 1.0)  # a cell without any is no landmark
    q_landmarks, k_landmarks = (average_cells(x * part, geometry) / counted for x in (q, k))
    if rotate is not None:
        q, k, q_landmarks, k_landmarks = (
            rotate[0](q),
            rotate[0](k),
            rotate[1](q_landmarks),
            rotate[1](k_landmarks),
        )
    # Landmarks are scaled, not the scores: in half precision unscaled ones overflow.
    to_landmarks = torch.einsum("bhnd,bhld->bhnl", q, k_landmarks * s)
    to_tokens = torch.einsum("bhld,bhnd->bhln", q_landmarks * s, k)
    if attn_bias is not None:  # a landmark's is the mean over its cell, of keys, and of queries
        bias = check_landmark_bias(attn_bias, *q.shape[:3])
        to_landmarks = to_landmarks + (average_cells(bias.mT * part, geometry) / counted).mT
        to_tokens = to_tokens + average_cells(bias * part, geometry) / counted
    a_q = softmax_or_zero(to_landmarks.masked_fill(share.mT == 0, -torch.inf))
    a_k = softmax_or_zero(to_tokens.masked_fill(part.mT == 0, -torch.inf))
    a_q, a_k = F.dropout(a_q, dropout_p), F.dropout(a_k, dropout_p)
    if mix_query is not None:
        a_q = torch.einsum("gi,binl->bgnl", mix_query, a_q)
    if mix_key is not None:
        a_k = torch.einsum("gi,biln->bgln", mix_key, a_k)
    attention = torch.einsum("bhnl,bhlm->bhnm", a_q, a_k)
    return torch.einsum("bhnm,bhmd->bhnd", attention, v)


def average_cells(x: Tensor, geometry: Geometry) -> Tensor:
    """The prefix tokens, then the mean of every cell of the grid, row by row: (B, heads, L, head_dim)."""
    grid, cells, num_prefix_tokens = geometry
    on_grid = x[:, :, num_prefix_tokens:].unflatten(2, grid)
    means = [
        on_grid[:, :, top:bottom, left:right].mean(dim=(2, 3))
        for top, bottom in cell_spans(grid[0], cells[0])
        for left, right in cell_spans(grid[1], cells[1])
    ]
    return torch.cat((x[:, :, :num_prefix_tokens], torch.stack(means, dim=2)), dim=2)


def cell_spans(length: int, cells: int) -> list[tuple[int, int]]:
    """The rows [start, stop) of each of ``cells`` adaptive cells over ``length`` rows; they may overlap."""
    return [(c * length // cells, -(-(c + 1) * length // cells)) for c in range(cells)]

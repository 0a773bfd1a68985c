"""Interactive multi-head self-attention in reverse order, in linear time and memory: the way that the library uses."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..checks import check_dropout
from ..modes import autocast_dtype, is_transformed, traceable, without_autocast
from ..paths import HAS_TRITON, Conditions, interactive_path
from ..renamed import took_mode
from .arguments import Geometry, Rotations, check_operands, check_tokens
from .factors import added_factors
from .recompute import RecomputedAttention
from .stored import pool_and_attend
from .tiled import attend_tiled, threads

Backend = Literal["auto", "stored", "recompute", "triton"]


@took_mode
@traceable
def interactive_attention(
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
    backend: Backend = "auto",
) -> Tensor:
    """O = Â_Q (Â_K V) (arXiv 2402.17507): attention through landmarks, whose maps the heads exchange.

    Args:
        q, k, v: (B, h, N, d), any strides; N = num_prefix_tokens + rows * columns, the prefix first.
        grid: rows and columns on which the tokens after the prefix lie, row by row.
        landmarks: cells per side (rows, columns) that q and k are averaged over; never more than the grid has.
        mix_query, mix_key: (h, h); output head g of A_Q (A_K) is the sum over i of mix[g, i] times head i.
            None leaves the heads apart.
        num_prefix_tokens: tokens that are not on the grid; each is a landmark of its own.
        attn_mask: of padding, boolean (B or 1, 1, 1, N), True takes part: nobody attends to the other tokens, no
            landmark averages over them, and what they ask for is undefined. Or one that parts the tokens, boolean
            (B or 1, 1, N, N), as between shifted windows: into at most 4 groups that see one another and nobody else,
            each of which attends as though the others were padding.
        attn_bias: of every pair of tokens, broadcastable to (B, h, N, N) with both N: added to the logits, averaged
            over the cells of keys in those of A_Q, of queries in those of A_K.
        rotate: rotations of tokens (B, h, N, d) and of landmarks (B, h, L, d), of queries and keys, which are averaged
            before. A mask, a bias and rotations are served by the ``stored`` form.
        scale: factor of the logits; d^(-1/2) by default.
        dropout_p: the share of the entries of A_Q and of A_K that is dropped, before the heads are mixed. Give 0 in
            evaluation.
        backend: ``stored`` keeps the (h, N, L) matrices for the backward pass, ``recompute`` works in tiles of them
            and forms them again, ``triton`` never writes them (one fused GPU kernel a pass); ``auto`` chooses by
            device, size, and whether a gradient is wanted.

    Returns:
        (B, h, N, d) in the dtype of q; under autocast in autocast's dtype.

    Raises:
        ValueError: for sizes or a mask that don't fit, or a backend that can't serve.
    """
    check_operands(q, k, v, mix_query, mix_key)
    check_dropout(dropout_p)
    geometry = check_tokens(q.shape[2], grid, landmarks, num_prefix_tokens)
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    added: Any = {"attn_mask": attn_mask, "attn_bias": attn_bias, "rotate": rotate}
    if any(x is not None for x in added.values()):
        if backend not in ("auto", "stored"):
            raise ValueError(f"backend={backend!r} takes no mask, bias or rotation; use backend='auto'")
        factors = added_factors(q, k, geometry, mix_query, mix_key, scale, dropout_p, **added)
        return factors.mixed_query @ (factors.mixed_key @ v)
    scale = q.shape[3] ** -0.5 if scale is None else scale

    lower = autocast_dtype(q)
    if lower is None:
        return _attend(q, k, v, mix_query, mix_key, scale, dropout_p, geometry, backend)
    q, k, v = q.to(lower), k.to(lower), v.to(lower)
    with without_autocast(q):
        return _attend(q, k, v, mix_query, mix_key, scale, dropout_p, geometry, backend)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mix_query: Tensor | None,
    mix_key: Tensor | None,
    scale: float,
    dropout_p: float,
    geometry: Geometry,
    backend: Backend,
) -> Tensor:
    mix_query, mix_key = (None if mix is None else mix.to(q.dtype) for mix in (mix_query, mix_key))
    given = [t for t in (q, k, v, mix_query, mix_key) if t is not None]
    differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in given)
    if is_transformed(*given):
        backend = "stored"
    elif backend == "auto":
        shape: Any = tuple(q.shape)
        backend = interactive_path(
            Conditions.of(q),
            shape,
            geometry.num_landmarks,
            dropout_p,
            differentiable=differentiable,
            threads=1 if torch.compiler.is_compiling() else threads(),
        )  # type: ignore[assignment]
    if backend == "triton":
        if not HAS_TRITON:
            raise ValueError("backend='triton' needs Triton, which is not installed; use backend='auto'")
        from .fused import attend_fused

        return attend_fused(q, k, v, mix_query, mix_key, scale, dropout_p, geometry)
    if backend == "recompute" and dropout_p == 0.0 and not torch.compiler.is_compiling():
        if differentiable:
            out: Tensor = RecomputedAttention.apply(q, k, v, mix_query, mix_key, scale, geometry)
            return out
        return attend_tiled(q, k, v, mix_query, mix_key, scale, geometry, for_backward=False).out
    operands = (q, k, v, mix_query, mix_key, scale, dropout_p, geometry)
    if (
        backend == "recompute" and not torch.compiler.is_exporting()
    ):  # an exported graph has no backward to save for
        return checkpoint(pool_and_attend, *operands, use_reentrant=False)
    return pool_and_attend(*operands)

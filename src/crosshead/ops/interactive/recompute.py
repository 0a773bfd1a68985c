"""The backward pass of the tiled form: it keeps its operands, the context C = Â_K V and how the rows of A_K share
their sum among the blocks, and forms the attention matrices again, a tile at a time."""

from typing import Any

import torch
from torch import Tensor

from ..chunks import empty_token_major
from ..modes import is_differentiated_again, plain_gradients
from .arguments import Geometry
from .landmarks import add_pooling_gradient_
from .stored import mix_heads_into, pool_and_attend
from .tiled import (
    Tiles,
    attend_tiled,
    blocks,
    key_attention,
    precise,
    put,
    query_attention,
    rows_of,
)


class RecomputedAttention(torch.autograd.Function):
    """O = Â_Q (Â_K V) for q, k, v (B, heads, N, head_dim), differentiable."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mix_query: Tensor | None,
        mix_key: Tensor | None,
        scale: float,
        geometry: Geometry,
    ) -> Tensor:
        attended = attend_tiled(q, k, v, mix_query, mix_key, scale, geometry, for_backward=True)
        out, q_landmarks, k_landmarks, context, shares = attended
        ctx.save_for_backward(q, k, v, mix_query, mix_key, q_landmarks, k_landmarks, context, *shares)
        ctx.scale, ctx.geometry = scale, geometry
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mix_query, mix_key, q_landmarks, k_landmarks, context, *shares = ctx.saved_tensors
        if is_differentiated_again():
            operands = (q, k, v, mix_query, mix_key, ctx.scale, 0.0, ctx.geometry)
            return *plain_gradients(pool_and_attend, operands, grad_out)[:5], None, None
        query, key = _Side(q, mix_query, k_landmarks), _Side(k, mix_key, q_landmarks)
        grad_v, tiles = empty_token_major(v), Tiles(context, 4)
        for (images, spans, key_spans), share in zip(blocks(q, context.shape[2]), shares, strict=True):
            c = context[images].flatten(0, 1)
            grad_c = _backward_query(query, images, spans, grad_out[images], c, tiles)
            _backward_key(key, images, key_spans, v[images], grad_v[images], grad_c, share, tiles)
        # The queries met k's landmarks, and the keys q's.
        add_pooling_gradient_(query.grad, key.grad_landmarks * ctx.scale, ctx.geometry)
        add_pooling_gradient_(key.grad, query.grad_landmarks * ctx.scale, ctx.geometry)
        grad_mixes = [None if g is None else g.to(q.dtype) for g in (query.grad_mix, key.grad_mix)]
        return query.grad, key.grad, grad_v, *grad_mixes, None, None


class _Side:
    """One of the two attention matrices in the backward: its tokens, mixing, landmarks, and their gradients."""

    def __init__(self, tokens: Tensor, mix: Tensor | None, landmarks: Tensor) -> None:
        self.tokens, self.mix, self.landmarks = tokens, precise(mix), landmarks
        self.grad, self.grad_landmarks = empty_token_major(tokens), torch.empty_like(landmarks)
        self.grad_mix = None if self.mix is None else torch.zeros_like(self.mix)

    def unmixed(self, grad: Tensor, attention: Tensor, out: Tensor) -> Tensor:
        """The gradient of A from that of Â = M A, in ``out``; adds to the gradient of M."""
        if self.mix is None or self.grad_mix is None:
            return grad
        heads = self.mix.shape[0]
        grad_rows, rows = (t.view(-1, heads, t[0].numel()) for t in (grad, attention))
        self.grad_mix += torch.bmm(grad_rows, rows.mT).sum(0)
        return mix_heads_into(self.mix.mT, grad, out)


def _backward_query(
    side: _Side, images: slice, spans: list[slice], grad_out: Tensor, context: Tensor, tiles: Tiles
) -> Tensor:
    """Through O = Â_Q C: the gradients of the queries, of their mixing and of k's landmarks; returns that of C."""
    k_l = side.landmarks[images].flatten(0, 1)
    grad_c, grad_k_l = torch.zeros_like(context), torch.zeros_like(k_l)
    for span in spans:
        queries, grad_rows = rows_of(side.tokens[images], span), rows_of(grad_out, span)
        scores, a_q, grad, spare = tiles(queries)
        query_attention(k_l, queries, scores, a_q)
        grad_c.baddbmm_(mix_heads_into(side.mix, a_q, scores), grad_rows)
        torch.bmm(context, grad_rows.mT, out=grad)
        inner = side.unmixed(grad, a_q, spare).mul_(a_q)
        grad_scores = inner.addcmul_(a_q, inner.sum(1, keepdim=True), value=-1)
        put(side.grad[images], span, torch.bmm(grad_scores.mT, k_l))
        grad_k_l.baddbmm_(grad_scores, queries)
    side.grad_landmarks[images] = grad_k_l.view_as(side.grad_landmarks[images])
    return grad_c


def _backward_key(
    side: _Side,
    images: slice,
    spans: list[slice],
    v: Tensor,
    grad_v: Tensor,
    grad_c: Tensor,
    shares: Tensor | None,
    tiles: Tiles,
) -> None:
    """Through C = Â_K V: the gradients of the keys, the values, their mixing and q's landmarks.

    dS = A ∘ dA - A ∘ Σ_n A ∘ dA. The sum needs all spans, so with more than one the second term follows later.
    """
    q_l = side.landmarks[images].flatten(0, 1)
    grad_q_l, attended_keys = torch.zeros_like(q_l), torch.zeros_like(q_l)
    inner_sum = torch.zeros_like(q_l[..., :1])
    for i, span in enumerate(spans):
        keys = rows_of(side.tokens[images], span)
        scores, a_k, grad, spare = tiles(keys)
        key_attention(q_l, keys, None if shares is None else shares[i], scores, a_k)
        put(grad_v, span, torch.bmm(mix_heads_into(side.mix, a_k, scores).mT, grad_c))
        torch.bmm(grad_c, rows_of(v, span).mT, out=grad)
        inner = side.unmixed(grad, a_k, spare).mul_(a_k)
        inner_sum += inner.sum(-1, keepdim=True)
        if shares is None:
            inner.addcmul_(a_k, inner_sum, value=-1)
        else:
            attended_keys.baddbmm_(a_k, keys)
        put(side.grad[images], span, torch.bmm(inner.mT, q_l))
        grad_q_l.baddbmm_(inner, keys)
    if shares is not None:
        grad_q_l.addcmul_(inner_sum, attended_keys, value=-1)
        weighted = -inner_sum * q_l
        for share, span in zip(shares, spans, strict=True):
            keys = rows_of(side.tokens[images], span)
            scores, a_k = tiles(keys)[:2]
            key_attention(q_l, keys, share, scores, a_k)
            put(side.grad[images], span, torch.bmm(a_k.mT, weighted), add=True)
    side.grad_landmarks[images] = grad_q_l.view_as(side.grad_landmarks[images])

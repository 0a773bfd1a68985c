"""The reverse order a block of tokens at a time: no matrix of (heads, N, L) outlives its block, forward or backward.

The forward keeps its inputs, the row statistics of A_K and the context Â_K V; the backward forms the attention
matrices again. Both need the statistics of A_K, which run over all N, before its rows can be mixed over the heads.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .arguments import Geometry
from .landmarks import add_pooling_gradient_, pool_landmarks
from .stored import mix_heads, mix_heads_into

# Of one attention matrix. Measured: from 2^18 to 2^20 nothing changes, smaller blocks pay for their calls.
BLOCK_ELEMENTS = 1 << 19
# A leading dimension off the vector width slows the products of a block by a fifth.
TOKEN_MULTIPLE = 64


class RecomputedAttention(torch.autograd.Function):
    """O = Â_Q (Â_K V) for q, k, v (B, heads, N, head_dim); products and statistics in float32 or better."""

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
        m_q, m_k = _precise(mix_query), _precise(mix_key)
        q_landmarks, k_landmarks = (_precise(t) * scale for t in pool_landmarks(q, k, geometry))
        out, context = _empty_tokens(q), torch.empty_like(q_landmarks)
        log_sums, tiles = torch.empty_like(q_landmarks[..., :1]), _Tiles(q_landmarks)
        for images, spans in _blocks(q, q_landmarks.shape[2]):
            q_l, k_l = q_landmarks[images].flatten(0, 1), k_landmarks[images].flatten(0, 1)
            log_sum, c = _gather_context(q_l, k[images], v[images], m_k, spans, tiles)
            for span in spans:
                queries = _rows(q[images], span)
                scores, weights = tiles(len(queries), queries.shape[1])
                torch.bmm(k_l, queries.mT, out=scores)  # transposed: its softmax is the faster one
                torch.softmax(scores, 1, out=weights)
                _put(out[images], span, torch.bmm(mix_heads_into(m_q, weights, scores).mT, c))
            log_sums[images], context[images] = log_sum.view_as(log_sums[images]), c.view_as(context[images])
        ctx.save_for_backward(q, k, v, mix_query, mix_key, q_landmarks, k_landmarks, log_sums, context)
        ctx.scale, ctx.geometry = scale, geometry
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mix_query, mix_key, q_landmarks, k_landmarks, log_sums, context = ctx.saved_tensors
        m_q, m_k = _precise(mix_query), _precise(mix_key)
        grad_q, grad_k, grad_v = _empty_tokens(q), _empty_tokens(k), _empty_tokens(v)
        grad_q_l, grad_k_l = torch.empty_like(q_landmarks), torch.empty_like(k_landmarks)
        grad_m_q = None if m_q is None else torch.zeros_like(m_q)
        grad_m_k = None if m_k is None else torch.zeros_like(m_k)
        for images, spans in _blocks(q, context.shape[2]):
            q_l, k_l, c, log_sum = (
                t[images].flatten(0, 1) for t in (q_landmarks, k_landmarks, context, log_sums)
            )
            grad_c, grad_k_rows = _backward_query(
                q[images], grad_out[images], k_l, c, m_q, grad_q[images], grad_m_q, spans
            )
            grad_q_rows = _backward_key(
                k[images],
                v[images],
                q_l,
                log_sum,
                grad_c,
                m_k,
                grad_k[images],
                grad_v[images],
                grad_m_k,
                spans,
            )
            grad_k_l[images] = grad_k_rows.view_as(grad_k_l[images])
            grad_q_l[images] = grad_q_rows.view_as(grad_q_l[images])
        add_pooling_gradient_(grad_q, grad_q_l * ctx.scale, ctx.geometry)
        add_pooling_gradient_(grad_k, grad_k_l * ctx.scale, ctx.geometry)
        grad_mixes = [None if g is None else g.to(q.dtype) for g in (grad_m_q, grad_m_k)]
        return grad_q, grad_k, grad_v, *grad_mixes, None, None


class _Tiles:
    """Two attention tiles that every block of the forward uses again: fresh ones would not be in the cache."""

    def __init__(self, landmarks: Tensor) -> None:
        self._like, self._landmarks = landmarks, landmarks.shape[2]
        self._flat = [landmarks.new_empty(0), landmarks.new_empty(0)]

    def __call__(self, heads: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Both as (heads, L, tokens), with whatever is in them."""
        size = heads * self._landmarks * tokens
        if self._flat[0].numel() < size:
            self._flat = [self._like.new_empty(size) for _ in range(2)]
        first, second = (flat[:size].view(heads, self._landmarks, tokens) for flat in self._flat)
        return first, second


def _gather_context(
    q_l: Tensor, k: Tensor, v: Tensor, m_k: Tensor | None, spans: list[slice], tiles: _Tiles
) -> tuple[Tensor, Tensor]:
    """log Σ_n exp of the rows of A_K's scores (B * heads, L, 1), and C = Â_K V (B * heads, L, head_dim)."""
    parts = []
    for span in spans:
        keys = _rows(k, span)
        scores, logs = tiles(len(keys), keys.shape[1])
        torch.bmm(q_l, keys.mT, out=scores)
        torch.log_softmax(scores, -1, out=logs)  # twice as fast as torch.logsumexp
        parts.append(scores[..., :1] - logs[..., :1])
    log_sum = torch.logsumexp(torch.cat(parts, -1), -1, keepdim=True)
    context = torch.zeros_like(q_l)
    for span, part in zip(spans, parts, strict=True):
        keys = _rows(k, span)
        scores, weights = tiles(len(keys), keys.shape[1])
        torch.bmm(q_l, keys.mT, out=scores)
        torch.softmax(scores, -1, out=weights)
        weights.mul_((part - log_sum).exp_())
        context += torch.bmm(mix_heads_into(m_k, weights, scores), _rows(v, span))
    return log_sum, context


def _key_attention(q_l: Tensor, keys: Tensor, log_sum: Tensor) -> Tensor:
    """A block of A_K, (B * heads, L, n), from the statistics of its whole rows."""
    return torch.baddbmm(-log_sum, q_l, keys.mT).exp_()


def _backward_query(
    q: Tensor,
    grad_out: Tensor,
    k_l: Tensor,
    context: Tensor,
    m_q: Tensor | None,
    grad_q: Tensor,
    grad_m_q: Tensor | None,
    spans: list[slice],
) -> tuple[Tensor, Tensor]:
    """Through O = Â_Q C: fills ``grad_q``, adds to ``grad_m_q``; the gradients of C and of the scaled k landmarks."""
    grad_c, grad_k_l = torch.zeros_like(context), torch.zeros_like(k_l)
    for span in spans:
        queries, grad_rows = _rows(q, span), _rows(grad_out, span)
        a_q = torch.softmax(torch.bmm(queries, k_l.mT), -1)
        grad_c += torch.bmm(mix_heads(m_q, a_q).mT, grad_rows)
        inner = _unmix(m_q, torch.bmm(grad_rows, context.mT), a_q, grad_m_q).mul_(a_q)
        grad_scores = torch.addcmul(inner, a_q, inner.sum(-1, keepdim=True), value=-1)
        _put(grad_q, span, torch.bmm(grad_scores, k_l))
        grad_k_l += torch.bmm(grad_scores.mT, queries)
    return grad_c, grad_k_l


def _backward_key(
    k: Tensor,
    v: Tensor,
    q_l: Tensor,
    log_sum: Tensor,
    grad_c: Tensor,
    m_k: Tensor | None,
    grad_k: Tensor,
    grad_v: Tensor,
    grad_m_k: Tensor | None,
    spans: list[slice],
) -> Tensor:
    """Through C = Â_K V: fills ``grad_k`` and ``grad_v``, adds to ``grad_m_k``; the gradient of the scaled q landmarks.

    dS = A ∘ dA - A ∘ Σ_n A ∘ dA. The sum needs every block, so the second term follows in a pass of its own.
    """
    grad_q_l, attended_keys, inner_sum = (
        torch.zeros_like(q_l),
        torch.zeros_like(q_l),
        torch.zeros_like(log_sum),
    )
    for span in spans:
        keys = _rows(k, span)
        a_k = _key_attention(q_l, keys, log_sum)
        _put(grad_v, span, torch.bmm(mix_heads(m_k, a_k).mT, grad_c))
        inner = _unmix(m_k, torch.bmm(grad_c, _rows(v, span).mT), a_k, grad_m_k).mul_(a_k)
        _put(grad_k, span, torch.bmm(inner.mT, q_l))
        grad_q_l += torch.bmm(inner, keys)
        attended_keys += torch.bmm(a_k, keys)
        inner_sum += inner.sum(-1, keepdim=True)
    grad_q_l.addcmul_(inner_sum, attended_keys, value=-1)
    weighted = -inner_sum * q_l
    for span in spans:
        a_k = _key_attention(q_l, _rows(k, span), log_sum)
        _put(grad_k, span, torch.bmm(a_k.mT, weighted), add=True)
    return grad_q_l


def _unmix(mix: Tensor | None, grad: Tensor, attention: Tensor, grad_mix: Tensor | None) -> Tensor:
    """The gradient of A from that of Â = M A, both (B * heads, n, m); adds the gradient of M to ``grad_mix``."""
    if mix is None or grad_mix is None:
        return grad
    heads = mix.shape[0]
    grad_rows, rows = grad.reshape(-1, heads, grad[0].numel()), attention.reshape(-1, heads, grad[0].numel())
    if len(grad_rows) == 1:
        grad_mix.addmm_(grad_rows[0], rows[0].mT)
    else:
        grad_mix += torch.bmm(grad_rows, rows.mT).sum(0)
    return mix_heads(mix.mT, grad)


def _blocks(x: Tensor, landmarks: int) -> list[tuple[slice, list[slice]]]:
    """Groups of whole images, or spans of one image's tokens: about BLOCK_ELEMENTS of attention each."""
    batch, heads, tokens, _ = x.shape
    images = max(1, BLOCK_ELEMENTS // (heads * landmarks * tokens))
    step = max(TOKEN_MULTIPLE, BLOCK_ELEMENTS // (heads * landmarks) // TOKEN_MULTIPLE * TOKEN_MULTIPLE)
    spans = [slice(first, first + step) for first in range(0, tokens, step)]
    return [(slice(first, first + images), spans) for first in range(0, batch, images)]


def _rows(x: Tensor, span: slice) -> Tensor:
    """Some tokens of (B, heads, N, head_dim) as (B * heads, n, head_dim); for one image an uncopied view."""
    rows = x[:, :, span]
    return _precise(rows[0] if rows.shape[0] == 1 else rows.flatten(0, 1))


def _put(x: Tensor, span: slice, rows: Tensor, add: bool = False) -> None:
    target = x[:, :, span]
    rows = rows.view(target.shape)
    target.add_(rows) if add else target.copy_(rows)


def _precise(x: Any) -> Any:
    """A half-precision tensor in float32, anything else as it is."""
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16) else x


def _empty_tokens(x: Tensor) -> Tensor:
    """(B, heads, N, head_dim) laid out token by token, as the projection behind it wants it."""
    batch, heads, tokens, width = x.shape
    return x.new_empty(batch, tokens, heads, width).transpose(1, 2)

"""The reverse order a block of tokens at a time: no matrix of (heads, N, L) outlives its block, forward or backward.

The forward keeps its inputs, the context C = Â_K V, and how the rows of A_K share their sum among the blocks; the
backward forms the attention matrices again. A tile is a block of an attention matrix, (B * heads, L, n), A_Q's too:
along n its softmax over L is the faster one. A_K's rows run over all N, so that more than one block takes two passes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .arguments import Geometry
from .landmarks import add_pooling_gradient_, pool_landmarks
from .stored import mix_heads_into

# Elements of a tile. Measured: from 2^18 to 2^20 nothing changes, smaller ones pay for their calls.
BLOCK_ELEMENTS = 1 << 19
# A_K in one tile up to this: it needs no second pass. Beyond, the tiles would leave the cache.
WHOLE_ELEMENTS = 1 << 20
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
        tiles, shares = _Tiles(q_landmarks, 2), []
        for images, spans, key_spans in _blocks(q, q_landmarks.shape[2]):
            q_l, k_l = q_landmarks[images].flatten(0, 1), k_landmarks[images].flatten(0, 1)
            shares.append(_row_shares(q_l, k[images], key_spans, tiles))
            c = _gather_context(q_l, k[images], v[images], m_k, shares[-1], key_spans, tiles)
            for span in spans:
                queries = _rows(q[images], span)
                scores, a_q = tiles(queries)
                _query_attention(k_l, queries, scores, a_q)
                _put(out[images], span, torch.bmm(mix_heads_into(m_q, a_q, scores).mT, c))
            context[images] = c.view_as(context[images])
        ctx.save_for_backward(q, k, v, mix_query, mix_key, q_landmarks, k_landmarks, context, *shares)
        ctx.scale, ctx.geometry = scale, geometry
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mix_query, mix_key, q_landmarks, k_landmarks, context, *shares = ctx.saved_tensors
        query, key = _Side(q, mix_query, k_landmarks), _Side(k, mix_key, q_landmarks)
        grad_v, tiles = _empty_tokens(v), _Tiles(context, 4)
        for (images, spans, key_spans), share in zip(_blocks(q, context.shape[2]), shares, strict=True):
            c = context[images].flatten(0, 1)
            grad_c = _backward_query(query, images, spans, grad_out[images], c, tiles)
            _backward_key(key, images, key_spans, v[images], grad_v[images], grad_c, share, tiles)
        # The queries met k's landmarks, and the keys q's.
        add_pooling_gradient_(query.grad, key.grad_landmarks * ctx.scale, ctx.geometry)
        add_pooling_gradient_(key.grad, query.grad_landmarks * ctx.scale, ctx.geometry)
        grad_mixes = [None if g is None else g.to(q.dtype) for g in (query.grad_mix, key.grad_mix)]
        return query.grad, key.grad, grad_v, *grad_mixes, None, None


class _Tiles:
    """Tiles that every block uses again: fresh ones would not be in the cache."""

    def __init__(self, landmarks: Tensor, count: int) -> None:
        self._landmarks = landmarks.shape[2]
        self._flat = [landmarks.new_empty(0)] * count

    def __call__(self, rows: Tensor) -> list[Tensor]:
        """All as (B * heads, L, n) for ``rows`` (B * heads, n, head_dim), with whatever is in them."""
        shape = (rows.shape[0], self._landmarks, rows.shape[1])
        size = shape[0] * shape[1] * shape[2]
        if self._flat[0].numel() < size:
            self._flat = [flat.new_empty(size) for flat in self._flat]
        return [flat[:size].view(shape) for flat in self._flat]


class _Side:
    """One of the two attention matrices in the backward: its tokens, mixing, landmarks, and their gradients."""

    def __init__(self, tokens: Tensor, mix: Tensor | None, landmarks: Tensor) -> None:
        self.tokens, self.mix, self.landmarks = tokens, _precise(mix), landmarks
        self.grad, self.grad_landmarks = _empty_tokens(tokens), torch.empty_like(landmarks)
        self.grad_mix = None if self.mix is None else torch.zeros_like(self.mix)

    def unmixed(self, grad: Tensor, attention: Tensor, out: Tensor) -> Tensor:
        """The gradient of A from that of Â = M A, in ``out``; adds to the gradient of M."""
        if self.mix is None or self.grad_mix is None:
            return grad
        heads = self.mix.shape[0]
        grad_rows, rows = (t.view(-1, heads, t[0].numel()) for t in (grad, attention))
        self.grad_mix += torch.bmm(grad_rows, rows.mT).sum(0)
        return mix_heads_into(self.mix.mT, grad, out)


def _query_attention(k_l: Tensor, queries: Tensor, scores: Tensor, out: Tensor) -> Tensor:
    """A tile of A_Q in ``out``; ``scores`` is another."""
    torch.bmm(k_l, queries.mT, out=scores)
    return torch.softmax(scores, 1, out=out)


def _key_attention(q_l: Tensor, keys: Tensor, share: Tensor | None, scores: Tensor, out: Tensor) -> Tensor:
    """A tile of A_K in ``out``, from its rows' share in their sum (B * heads, L, 1), None for all of it."""
    torch.bmm(q_l, keys.mT, out=scores)
    torch.softmax(scores, -1, out=out)
    return out if share is None else out.mul_(share)


def _row_shares(q_l: Tensor, k: Tensor, spans: list[slice], tiles: _Tiles) -> Tensor | None:
    """Of the sums of exp over A_K's rows, how much lies in each span, (spans, B * heads, L, 1); None for one span."""
    if len(spans) == 1:
        return None
    log_sums = []
    for span in spans:
        keys = _rows(k, span)
        scores, logs = tiles(keys)[:2]
        torch.bmm(q_l, keys.mT, out=scores)
        torch.log_softmax(scores, -1, out=logs)  # twice as fast as torch.logsumexp
        log_sums.append(scores[..., :1] - logs[..., :1])
    return torch.softmax(torch.stack(log_sums), 0)


def _gather_context(
    q_l: Tensor,
    k: Tensor,
    v: Tensor,
    m_k: Tensor | None,
    shares: Tensor | None,
    spans: list[slice],
    tiles: _Tiles,
) -> Tensor:
    """C = Â_K V, (B * heads, L, head_dim)."""
    context = torch.zeros_like(q_l)
    for i, span in enumerate(spans):
        keys = _rows(k, span)
        scores, a_k = tiles(keys)[:2]
        _key_attention(q_l, keys, None if shares is None else shares[i], scores, a_k)
        context.baddbmm_(mix_heads_into(m_k, a_k, scores), _rows(v, span))
    return context


def _backward_query(
    side: _Side, images: slice, spans: list[slice], grad_out: Tensor, context: Tensor, tiles: _Tiles
) -> Tensor:
    """Through O = Â_Q C: the gradients of the queries, of their mixing and of k's landmarks; returns that of C."""
    k_l = side.landmarks[images].flatten(0, 1)
    grad_c, grad_k_l = torch.zeros_like(context), torch.zeros_like(k_l)
    for span in spans:
        queries, grad_rows = _rows(side.tokens[images], span), _rows(grad_out, span)
        scores, a_q, grad, spare = tiles(queries)
        _query_attention(k_l, queries, scores, a_q)
        grad_c.baddbmm_(mix_heads_into(side.mix, a_q, scores), grad_rows)
        torch.bmm(context, grad_rows.mT, out=grad)
        inner = side.unmixed(grad, a_q, spare).mul_(a_q)
        grad_scores = inner.addcmul_(a_q, inner.sum(1, keepdim=True), value=-1)
        _put(side.grad[images], span, torch.bmm(grad_scores.mT, k_l))
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
    tiles: _Tiles,
) -> None:
    """Through C = Â_K V: the gradients of the keys, the values, their mixing and q's landmarks.

    dS = A ∘ dA - A ∘ Σ_n A ∘ dA. The sum needs all spans, so with more than one the second term follows later.
    """
    q_l = side.landmarks[images].flatten(0, 1)
    grad_q_l, attended_keys = torch.zeros_like(q_l), torch.zeros_like(q_l)
    inner_sum = torch.zeros_like(q_l[..., :1])
    for i, span in enumerate(spans):
        keys = _rows(side.tokens[images], span)
        scores, a_k, grad, spare = tiles(keys)
        _key_attention(q_l, keys, None if shares is None else shares[i], scores, a_k)
        _put(grad_v, span, torch.bmm(mix_heads_into(side.mix, a_k, scores).mT, grad_c))
        torch.bmm(grad_c, _rows(v, span).mT, out=grad)
        inner = side.unmixed(grad, a_k, spare).mul_(a_k)
        inner_sum += inner.sum(-1, keepdim=True)
        if shares is None:
            inner.addcmul_(a_k, inner_sum, value=-1)
        else:
            attended_keys.baddbmm_(a_k, keys)
        _put(side.grad[images], span, torch.bmm(inner.mT, q_l))
        grad_q_l.baddbmm_(inner, keys)
    if shares is not None:
        grad_q_l.addcmul_(inner_sum, attended_keys, value=-1)
        weighted = -inner_sum * q_l
        for share, span in zip(shares, spans, strict=True):
            keys = _rows(side.tokens[images], span)
            scores, a_k = tiles(keys)[:2]
            _key_attention(q_l, keys, share, scores, a_k)
            _put(side.grad[images], span, torch.bmm(a_k.mT, weighted), add=True)
    side.grad_landmarks[images] = grad_q_l.view_as(side.grad_landmarks[images])


def _blocks(x: Tensor, landmarks: int) -> list[tuple[slice, list[slice], list[slice]]]:
    """Groups of whole images, or one image and spans of its queries and of its keys."""
    batch, heads, tokens, _ = x.shape
    row = heads * landmarks
    images = max(1, BLOCK_ELEMENTS // (row * tokens))
    step = max(TOKEN_MULTIPLE, BLOCK_ELEMENTS // row // TOKEN_MULTIPLE * TOKEN_MULTIPLE)
    spans = [slice(first, first + step) for first in range(0, tokens, step)]
    key_spans = [slice(0, tokens)] if row * tokens <= WHOLE_ELEMENTS else spans
    return [(slice(first, first + images), spans, key_spans) for first in range(0, batch, images)]


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

"""The reverse order a block of tokens at a time, in tiles that stay in the cache: no matrix of (heads, N, L) outlives
its block, but for A_K where it fits.

A tile is a block of an attention matrix, (B * heads, L, n), A_Q's too: along n its softmax over L is the faster one.
A_K's rows run over all N. Where a backward pass will form them again a block at a time, it must know how they share
their sum among the blocks, so that more than one block takes two passes. Where none follows, A_K stands whole instead,
once, and only its mixed version is a tile.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..chunks import empty_token_major
from .arguments import Geometry
from .landmarks import pool_landmarks
from .stored import mix_heads_into

# Elements of a tile for each thread, 1 MB of float32. Measured: with 1 MB of second cache a core, one thread takes 0.93
# to 0.99 of the time of twice as many, two threads 0.95 to 1.03 of that of half as many; with 2 MB, and two threads,
# both are alike, and at four times as many the tiles of the backward leave the cache.
BLOCK_ELEMENTS = 1 << 18
MOST_THREADS = 4  # that count; beyond, tiles would grow past what several heads fill
# A_K in one tile up to this: it needs no second pass. Beyond, the tiles would leave the cache.
WHOLE_ELEMENTS = 1 << 20
# On a GPU there is no such cache, and every product is a launch: 256 MiB of float32 a tile.
ACCELERATOR_ELEMENTS = 1 << 26
# A_K whole, where no backward follows, up to this: 64 MiB in float32.
AT_ONCE_ELEMENTS = 1 << 24
# A tile's rows begin this many elements, a vector, apart, or an odd multiple of it: the products want whole vectors,
# and rows a power of two apart would all fall into a few sets of the cache (a fifth of the time at 1,024 and 2,048).
TOKEN_MULTIPLE = 16


class Attended(NamedTuple):
    """O and what the backward pass needs beside the operands."""

    out: Tensor
    q_landmarks: Tensor
    k_landmarks: Tensor
    context: Tensor
    shares: list[Tensor | None]


def attend_tiled(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mix_query: Tensor | None,
    mix_key: Tensor | None,
    scale: float,
    geometry: Geometry,
    *,
    for_backward: bool,
) -> Attended:
    """O = Â_Q (Â_K V) for q, k, v (B, heads, N, head_dim); products and statistics in float32 or better."""
    m_q, m_k = precise(mix_query), precise(mix_key)
    q_landmarks, k_landmarks = (precise(t) * scale for t in pool_landmarks(q, k, geometry))
    out, context = empty_token_major(q), torch.empty_like(q_landmarks)
    tiles, shares = Tiles(q_landmarks, 2), []
    heads, tokens, landmarks = q.shape[1], q.shape[2], q_landmarks.shape[2]
    at_once = not for_backward and heads * tokens * landmarks <= AT_ONCE_ELEMENTS
    for images, spans, key_spans in blocks(q, landmarks):
        q_l, k_l = q_landmarks[images].flatten(0, 1), k_landmarks[images].flatten(0, 1)
        if at_once and len(key_spans) > 1:
            c = _gather_at_once(q_l, k[images], v[images], m_k, key_spans, tiles)
        else:
            shares.append(_row_shares(q_l, k[images], key_spans, tiles))
            c = _gather_context(q_l, k[images], v[images], m_k, shares[-1], key_spans, tiles)
        for span in spans:
            queries = rows_of(q[images], span)
            scores, a_q = tiles(queries)
            query_attention(k_l, queries, scores, a_q)
            put(out[images], span, torch.bmm(mix_heads_into(m_q, a_q, scores).mT, c))
        context[images] = c.view_as(context[images])
    return Attended(out, q_landmarks, k_landmarks, context, shares)


class Tiles:
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


def query_attention(k_l: Tensor, queries: Tensor, scores: Tensor, out: Tensor) -> Tensor:
    """A tile of A_Q in ``out``; ``scores`` is another."""
    torch.bmm(k_l, queries.mT, out=scores)
    return torch.softmax(scores, 1, out=out)


def key_attention(q_l: Tensor, keys: Tensor, share: Tensor | None, scores: Tensor, out: Tensor) -> Tensor:
    """A tile of A_K in ``out``, from its rows' share in their sum (B * heads, L, 1), None for all of it."""
    torch.bmm(q_l, keys.mT, out=scores)
    torch.softmax(scores, -1, out=out)
    return out if share is None else out.mul_(share)


def _row_shares(q_l: Tensor, k: Tensor, spans: list[slice], tiles: Tiles) -> Tensor | None:
    """Of the sums of exp over A_K's rows, how much lies in each span, (spans, B * heads, L, 1); None for one span."""
    if len(spans) == 1:
        return None
    log_sums = []
    for span in spans:
        keys = rows_of(k, span)
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
    tiles: Tiles,
) -> Tensor:
    """C = Â_K V, (B * heads, L, head_dim)."""
    context = torch.zeros_like(q_l)
    for i, span in enumerate(spans):
        keys = rows_of(k, span)
        scores, a_k = tiles(keys)[:2]
        key_attention(q_l, keys, None if shares is None else shares[i], scores, a_k)
        context.baddbmm_(mix_heads_into(m_k, a_k, scores), rows_of(v, span))
    return context


def _gather_at_once(
    q_l: Tensor, k: Tensor, v: Tensor, m_k: Tensor | None, spans: list[slice], tiles: Tiles
) -> Tensor:
    """``_gather_context`` of one image with A_K whole. The heads are mixed a landmark at a time, uncopied."""
    keys = rows_of(k, slice(None))
    a_k = torch.bmm(q_l, keys.mT)
    torch.softmax(a_k, -1, out=a_k)
    context = torch.zeros_like(q_l)
    for span in spans:
        values, tile = rows_of(v, span), a_k[:, :, span]
        if m_k is not None:
            mixed = tiles(values)[0].view(tile.shape[1], tile.shape[0], -1)
            torch.bmm(m_k.expand(mixed.shape[0], -1, -1), tile.transpose(0, 1), out=mixed)
            tile = mixed.transpose(0, 1)
        context.baddbmm_(tile, values)
    return context


def threads() -> int:
    """PyTorch's threads, which share a tile among them, as far as they count."""
    return min(torch.get_num_threads(), MOST_THREADS)


def blocks(x: Tensor, landmarks: int) -> list[tuple[slice, list[slice], list[slice]]]:
    """Groups of whole images, or one image and spans of its queries and of its keys."""
    batch, heads, tokens, _ = x.shape
    on_cpu = x.device.type == "cpu"
    row, block = heads * landmarks, BLOCK_ELEMENTS * threads() if on_cpu else ACCELERATOR_ELEMENTS
    whole = WHOLE_ELEMENTS if on_cpu else ACCELERATOR_ELEMENTS
    images = max(1, block // (row * tokens))
    vectors = block // row // TOKEN_MULTIPLE
    step = (vectors - 1 | 1) * TOKEN_MULTIPLE if vectors > 1 else TOKEN_MULTIPLE
    spans = [slice(first, first + step) for first in range(0, tokens, step)]
    key_spans = [slice(0, tokens)] if row * tokens <= whole else spans
    return [(slice(first, first + images), spans, key_spans) for first in range(0, batch, images)]


def rows_of(x: Tensor, span: slice) -> Tensor:
    """Some tokens of (B, heads, N, head_dim) as (B * heads, n, head_dim); for one image an uncopied view."""
    rows = x[:, :, span]
    out: Tensor = precise(rows[0] if rows.shape[0] == 1 else rows.flatten(0, 1))
    return out


def put(x: Tensor, span: slice, rows: Tensor, add: bool = False) -> None:
    target = x[:, :, span]
    rows = rows.view(target.shape)
    target.add_(rows) if add else target.copy_(rows)


def precise(x: Any) -> Any:
    """A half-precision tensor in float32, anything else as it is."""
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16) else x

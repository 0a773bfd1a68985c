# ruff: noqa: RUF005 - Triton compiles the concatenation of tuples, not their unpacking
# mypy: ignore-errors
"""Interactive attention fused for GPUs, in Triton: tiles of A_Q and A_K live in registers and never reach memory.

A program mixes for a group of GROUP output heads: it walks over all heads, forms each one's tile once, and adds it to
the tile of every head of its group. Landmarks are padded to LANDMARKS, the head width to WIDTH and tokens to TOKENS a
tile. Half-precision tiles are multiplied as they are, with float32 sums; UPCAST turns them into float32 first, for
Triton's interpreter, whose bfloat16 arithmetic is wrong.

Pointers: ``q``, ``k``, ``v`` and their like are (B, H, N, width) of strides ``*_b``, ``*_h``, ``*_n`` and 1; landmarks,
contexts and their like (B, H, L, width) and row statistics (B, H, L) are contiguous. What is summed over a row of
programs is written as one part a program, (splits, ...), and added up afterwards: the order never changes.
"""

import triton
import triton.language as tl


@triton.jit
def _load(base, rows, columns, row_stride, num_rows, num_columns, UPCAST: tl.constexpr):
    """A tile (rows, columns) of unit column stride, zero outside; transposed where ``rows`` varies along axis 1."""
    tile = tl.load(
        base + rows * row_stride + columns, mask=(rows < num_rows) & (columns < num_columns), other=0.0
    )
    return tile.to(tl.float32) if UPCAST else tile


@triton.jit
def _store(base, rows, columns, row_stride, num_rows, num_columns, tile):
    mask = (rows < num_rows) & (columns < num_columns)
    tl.store(base + rows * row_stride + columns, tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _if_head(i, H, count):
    """``count`` rows to store of head i, none of a head beyond the last."""
    return count * (i < H).to(tl.int32)


@triton.jit
def _zeros(GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    tiles = ()
    for _ in tl.static_range(GROUP):
        tiles = tiles + (tl.zeros((ROWS, COLUMNS), tl.float32),)
    return tiles


@triton.jit
def _weight(mix, g, i, H, MIXED: tl.constexpr):
    """M[g, i]; 1 without mixing. A head beyond the last reads the last: what it makes is never stored."""
    return tl.load(mix + tl.minimum(g, H - 1) * H + tl.minimum(i, H - 1)).to(tl.float32) if MIXED else 1.0


@triton.jit
def _query_tile(q, k_l, n, lm, d, q_n, N, L, width, scale, UPCAST: tl.constexpr, PRECISION: tl.constexpr):
    """A_Q of one head, (TOKENS, LANDMARKS): softmax over the landmarks."""
    rows = _load(q, n[:, None], d[None, :], q_n, N, width, UPCAST)
    columns = _load(k_l, lm[None, :], d[:, None], width, L, width, UPCAST)
    scores = tl.dot(rows, columns, input_precision=PRECISION) * scale
    scores = tl.where(lm[None, :] < L, scores, float("-inf"))
    weights = tl.exp(scores - tl.max(scores, 1)[:, None])
    return weights / tl.sum(weights, 1)[:, None]


@triton.jit
def _key_tile(
    q_l, k, log_sum, n, lm, d, k_n, N, L, width, scale, UPCAST: tl.constexpr, PRECISION: tl.constexpr
):
    """A_K of one head, (LANDMARKS, TOKENS), from the statistics of its whole rows."""
    rows = _load(q_l, lm[:, None], d[None, :], width, L, width, UPCAST)
    columns = _load(k, n[None, :], d[:, None], k_n, N, width, UPCAST)
    scores = tl.dot(rows, columns, input_precision=PRECISION) * scale
    scores -= tl.load(log_sum + lm, mask=lm < L, other=0.0)[:, None]
    return tl.where((lm[:, None] < L) & (n[None, :] < N), tl.exp(scores), 0.0)


@triton.jit
def _mixed_query_tiles(
    q, k_l, mix, g0, n, lm, d, q_h, q_n, H, N, L, width, scale,
    GROUP: tl.constexpr, TOKENS: tl.constexpr, LANDMARKS: tl.constexpr, MIXED: tl.constexpr, UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Â_Q of the heads g0, g0 + 1, ... of the group."""
    mixed = _zeros(GROUP, TOKENS, LANDMARKS)
    first = 0 if MIXED else g0
    last = H if MIXED else g0 + 1
    for i in range(first, last):
        tile = _query_tile(
            q + i * q_h, k_l + i * L * width, n, lm, d, q_n, N, L, width, scale, UPCAST, PRECISION
        )
        more = ()
        for g in tl.static_range(GROUP):
            more = more + (mixed[g] + _weight(mix, g0 + g, i, H, MIXED) * tile,)
        mixed = more
    return mixed


@triton.jit
def _mixed_key_tiles(
    q_l, k, log_sum, mix, g0, n, lm, d, k_h, k_n, H, N, L, width, scale,
    GROUP: tl.constexpr, TOKENS: tl.constexpr, LANDMARKS: tl.constexpr, MIXED: tl.constexpr, UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Â_K of the heads g0, g0 + 1, ... of the group."""
    mixed = _zeros(GROUP, LANDMARKS, TOKENS)
    first = 0 if MIXED else g0
    last = H if MIXED else g0 + 1
    for i in range(first, last):
        tile = _key_tile(
            q_l + i * L * width,
            k + i * k_h,
            log_sum + i * L,
            n,
            lm,
            d,
            k_n,
            N,
            L,
            width,
            scale,
            UPCAST,
            PRECISION,
        )
        more = ()
        for g in tl.static_range(GROUP):
            more = more + (mixed[g] + _weight(mix, g0 + g, i, H, MIXED) * tile,)
        mixed = more
    return mixed


@triton.jit
def sum_keys(
    q_l, k, part, k_b, k_h, k_n, H, N, L, width, scale, chunk,
    TOKENS: tl.constexpr, LANDMARKS: tl.constexpr, WIDTH: tl.constexpr, UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """part (splits, B, H, L) = log Σ_n exp of A_K's scores over a chunk of tokens. Grid (splits, H, B)."""
    split, i, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    lm, d = tl.arange(0, LANDMARKS), tl.arange(0, WIDTH)
    rows = _load(q_l + (b * H + i) * L * width, lm[:, None], d[None, :], width, L, width, UPCAST)
    top = tl.full((LANDMARKS,), float("-inf"), tl.float32)
    total = tl.zeros((LANDMARKS,), tl.float32)
    for n0 in range(split * chunk, tl.minimum(N, (split + 1) * chunk), TOKENS):
        n = n0 + tl.arange(0, TOKENS)
        columns = _load(k + b * k_b + i * k_h, n[None, :], d[:, None], k_n, N, width, UPCAST)
        scores = tl.dot(rows, columns, input_precision=PRECISION) * scale
        scores = tl.where(n[None, :] < N, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(scores - higher[:, None]), 1)
        top = higher
    tl.store(part + ((split * tl.num_programs(2) + b) * H + i) * L + lm, top + tl.log(total), mask=lm < L)


@triton.jit
def gather_context(
    q_l, k, v, log_sum, mix, part, k_b, k_h, k_n, v_b, v_h, v_n, H, N, L, width, scale, chunk,
    GROUP: tl.constexpr, TOKENS: tl.constexpr, LANDMARKS: tl.constexpr, WIDTH: tl.constexpr, MIXED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """part (splits, B, H, L, width) = Â_K V over a chunk of tokens. Grid (splits, groups, B)."""
    split, g0, b = tl.program_id(0), tl.program_id(1) * GROUP, tl.program_id(2).to(tl.int64)
    lm, d = tl.arange(0, LANDMARKS), tl.arange(0, WIDTH)
    sums = _zeros(GROUP, LANDMARKS, WIDTH)
    for n0 in range(split * chunk, tl.minimum(N, (split + 1) * chunk), TOKENS):
        n = n0 + tl.arange(0, TOKENS)
        mixed = _mixed_key_tiles(
            q_l + b * H * L * width, k + b * k_b, log_sum + b * H * L, mix, g0, n, lm, d, k_h, k_n, H, N, L, width,
            scale, GROUP, TOKENS, LANDMARKS, MIXED, UPCAST, PRECISION,
        )  # fmt: skip
        more = ()
        for g in tl.static_range(GROUP):
            own = tl.minimum(g0 + g, H - 1)
            values = _load(v + b * v_b + own * v_h, n[:, None], d[None, :], v_n, N, width, UPCAST)
            more = more + (tl.dot(mixed[g].to(values.dtype), values, sums[g], input_precision=PRECISION),)
        sums = more
    for g in tl.static_range(GROUP):
        base = part + ((split * tl.num_programs(2) + b) * H + g0 + g) * L * width
        _store(base, lm[:, None], d[None, :], width, _if_head(g0 + g, H, L), width, sums[g])


@triton.jit
def spread_context(
    q, k_l, context, mix, out, q_b, q_h, q_n, o_b, o_h, o_n, H, N, L, width, scale,
    GROUP: tl.constexpr, TOKENS: tl.constexpr, LANDMARKS: tl.constexpr, WIDTH: tl.constexpr, MIXED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = Â_Q C, a tile of tokens a program. Grid (token tiles, groups, B)."""
    n, g0, b = (
        tl.program_id(0) * TOKENS + tl.arange(0, TOKENS),
        tl.program_id(1) * GROUP,
        tl.program_id(2).to(tl.int64),
    )
    lm, d = tl.arange(0, LANDMARKS), tl.arange(0, WIDTH)
    mixed = _mixed_query_tiles(
        q + b * q_b, k_l + b * H * L * width, mix, g0, n, lm, d, q_h, q_n, H, N, L, width, scale,
        GROUP, TOKENS, LANDMARKS, MIXED, UPCAST, PRECISION,
    )  # fmt: skip
    for g in tl.static_range(GROUP):
        own = tl.minimum(g0 + g, H - 1)
        rows = _load(context + (b * H + own) * L * width, lm[:, None], d[None, :], width, L, width, UPCAST)
        tile = tl.dot(mixed[g].to(rows.dtype), rows, input_precision=PRECISION)
        _store(out + b * o_b + own * o_h, n[:, None], d[None, :], o_n, _if_head(g0 + g, H, N), width, tile)


@triton.jit
def grad_context(
    q, k_l, mix, grad_out, part, q_b, q_h, q_n, o_b, o_h, o_n, H, N, L, width, scale, chunk,
    GROUP: tl.constexpr, TOKENS: tl.constexpr, LANDMARKS: tl.constexpr, WIDTH: tl.constexpr, MIXED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """part (splits, B, H, L, width) = Â_Qᵀ dO over a chunk of tokens. Grid (splits, groups, B)."""
    split, g0, b = tl.program_id(0), tl.program_id(1) * GROUP, tl.program_id(2).to(tl.int64)
    lm, d = tl.arange(0, LANDMARKS), tl.arange(0, WIDTH)
    sums = _zeros(GROUP, LANDMARKS, WIDTH)
    for n0 in range(split * chunk, tl.minimum(N, (split + 1) * chunk), TOKENS):
        n = n0 + tl.arange(0, TOKENS)
        mixed = _mixed_query_tiles(
            q + b * q_b, k_l + b * H * L * width, mix, g0, n, lm, d, q_h, q_n, H, N, L, width, scale,
            GROUP, TOKENS, LANDMARKS, MIXED, UPCAST, PRECISION,
        )  # fmt: skip
        more = ()
        for g in tl.static_range(GROUP):
            own = tl.minimum(g0 + g, H - 1)
            upstream = _load(grad_out + b * o_b + own * o_h, n[:, None], d[None, :], o_n, N, width, UPCAST)
            turned = tl.trans(mixed[g].to(upstream.dtype))
            more = more + (tl.dot(turned, upstream, sums[g], input_precision=PRECISION),)
        sums = more
    for g in tl.static_range(GROUP):
        base = part + ((split * tl.num_programs(2) + b) * H + g0 + g) * L * width
        _store(base, lm[:, None], d[None, :], width, _if_head(g0 + g, H, L), width, sums[g])


@triton.jit
def grad_queries(
    q, k_l, context, mix, grad_out, grad_q, part_k_l, part_mix, q_b, q_h, q_n, o_b, o_h, o_n, dq_b, dq_h, dq_n,
    H, N, L, width, scale, chunk,
    GROUP: tl.constexpr, TOKENS: tl.constexpr, LANDMARKS: tl.constexpr, WIDTH: tl.constexpr, HEADS: tl.constexpr,
    MIXED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Through A_Q: grad_q, part_k_l (splits, B, H, L, width), part_mix (splits, B, H, H). Grid (splits, groups, B)."""
    split, i0, b = tl.program_id(0), tl.program_id(1) * GROUP, tl.program_id(2).to(tl.int64)
    lm, d, heads = tl.arange(0, LANDMARKS), tl.arange(0, WIDTH), tl.arange(0, HEADS)
    sums, mix_sums = _zeros(GROUP, LANDMARKS, WIDTH), _zeros(GROUP, 1, HEADS)
    first = 0 if MIXED else i0
    last = H if MIXED else i0 + 1
    for n0 in range(split * chunk, tl.minimum(N, (split + 1) * chunk), TOKENS):
        n = n0 + tl.arange(0, TOKENS)
        own_tiles = ()
        for i in tl.static_range(GROUP):
            own = tl.minimum(i0 + i, H - 1)
            own_tiles = own_tiles + (
                _query_tile(
                    q + b * q_b + own * q_h, k_l + (b * H + own) * L * width, n, lm, d, q_n, N, L, width, scale,
                    UPCAST, PRECISION,
                ),
            )  # fmt: skip
        grads = _zeros(GROUP, TOKENS, LANDMARKS)
        for g in range(first, last):
            upstream = _load(grad_out + b * o_b + g * o_h, n[:, None], d[None, :], o_n, N, width, UPCAST)
            turned = _load(
                context + (b * H + g) * L * width, lm[None, :], d[:, None], width, L, width, UPCAST
            )
            grad_mixed = tl.dot(upstream, turned, input_precision=PRECISION)
            more, more_mix = (), ()
            for i in tl.static_range(GROUP):
                more = more + (grads[i] + _weight(mix, g, i0 + i, H, MIXED) * grad_mixed,)
                if MIXED:
                    inner = tl.sum(tl.sum(own_tiles[i] * grad_mixed, 1), 0)
                    more_mix = more_mix + (mix_sums[i] + tl.where(heads == g, inner, 0.0)[None, :],)
            grads = more
            if MIXED:
                mix_sums = more_mix
        more = ()
        for i in tl.static_range(GROUP):
            own = tl.minimum(i0 + i, H - 1)
            inner = own_tiles[i] * grads[i]
            grad_scores = (inner - own_tiles[i] * tl.sum(inner, 1)[:, None]) * scale
            rows = _load(k_l + (b * H + own) * L * width, lm[:, None], d[None, :], width, L, width, UPCAST)
            tile = tl.dot(grad_scores.to(rows.dtype), rows, input_precision=PRECISION)
            _store(
                grad_q + b * dq_b + own * dq_h,
                n[:, None],
                d[None, :],
                dq_n,
                _if_head(i0 + i, H, N),
                width,
                tile,
            )
            queries = _load(q + b * q_b + own * q_h, n[:, None], d[None, :], q_n, N, width, UPCAST)
            turned = tl.trans(grad_scores.to(queries.dtype))
            more = more + (tl.dot(turned, queries, sums[i], input_precision=PRECISION),)
        sums = more
    place = split * tl.num_programs(2) + b
    for i in tl.static_range(GROUP):
        base = part_k_l + (place * H + i0 + i) * L * width
        _store(base, lm[:, None], d[None, :], width, _if_head(i0 + i, H, L), width, sums[i])
        if MIXED:
            column = part_mix + place * H * H + heads[None, :] * H + i0 + i
            tl.store(column, mix_sums[i], mask=heads[None, :] < _if_head(i0 + i, H, H))


@triton.jit
def grad_values(
    q_l, k, log_sum, mix, grad_c, grad_v, k_b, k_h, k_n, dv_b, dv_h, dv_n, H, N, L, width, scale,
    GROUP: tl.constexpr, TOKENS: tl.constexpr, LANDMARKS: tl.constexpr, WIDTH: tl.constexpr, MIXED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """grad_v = Â_Kᵀ dC, a tile of tokens a program. Grid (token tiles, groups, B)."""
    n, g0, b = (
        tl.program_id(0) * TOKENS + tl.arange(0, TOKENS),
        tl.program_id(1) * GROUP,
        tl.program_id(2).to(tl.int64),
    )
    lm, d = tl.arange(0, LANDMARKS), tl.arange(0, WIDTH)
    mixed = _mixed_key_tiles(
        q_l + b * H * L * width, k + b * k_b, log_sum + b * H * L, mix, g0, n, lm, d, k_h, k_n, H, N, L, width, scale,
        GROUP, TOKENS, LANDMARKS, MIXED, UPCAST, PRECISION,
    )  # fmt: skip
    for g in tl.static_range(GROUP):
        own = tl.minimum(g0 + g, H - 1)
        rows = _load(grad_c + (b * H + own) * L * width, lm[:, None], d[None, :], width, L, width, UPCAST)
        tile = tl.dot(tl.trans(mixed[g].to(rows.dtype)), rows, input_precision=PRECISION)
        _store(
            grad_v + b * dv_b + own * dv_h, n[:, None], d[None, :], dv_n, _if_head(g0 + g, H, N), width, tile
        )


@triton.jit
def grad_keys(
    q_l, k, v, log_sum, grad_c, mix, inner_sum, part_sum, part_mix, grad_k, part_q_l,
    k_b, k_h, k_n, v_b, v_h, v_n, dk_b, dk_h, dk_n, H, N, L, width, scale, chunk,
    STATISTICS: tl.constexpr, GROUP: tl.constexpr, TOKENS: tl.constexpr, LANDMARKS: tl.constexpr, WIDTH: tl.constexpr,
    HEADS: tl.constexpr, MIXED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Through A_K, in two launches, since its softmax runs over all tokens. Grid (splits, groups, B).

    STATISTICS: part_sum (splits, B, H, L) = Σ_n A_K ∘ dA_K and part_mix (splits, B, H, H); then, from their sums in
    inner_sum (B, H, L): grad_k and part_q_l (splits, B, H, L, width).
    """
    split, i0, b = tl.program_id(0), tl.program_id(1) * GROUP, tl.program_id(2).to(tl.int64)
    lm, d, heads = tl.arange(0, LANDMARKS), tl.arange(0, WIDTH), tl.arange(0, HEADS)
    sums, mix_sums = _zeros(GROUP, LANDMARKS, WIDTH), _zeros(GROUP, 1, HEADS)
    inner_sums = _zeros(GROUP, LANDMARKS, 1)
    first = 0 if MIXED else i0
    last = H if MIXED else i0 + 1
    for n0 in range(split * chunk, tl.minimum(N, (split + 1) * chunk), TOKENS):
        n = n0 + tl.arange(0, TOKENS)
        own_tiles = ()
        for i in tl.static_range(GROUP):
            own = tl.minimum(i0 + i, H - 1)
            own_tiles = own_tiles + (
                _key_tile(
                    q_l + (b * H + own) * L * width, k + b * k_b + own * k_h, log_sum + (b * H + own) * L,
                    n, lm, d, k_n, N, L, width, scale, UPCAST, PRECISION,
                ),
            )  # fmt: skip
        grads = _zeros(GROUP, LANDMARKS, TOKENS)
        for g in range(first, last):
            upstream = _load(
                grad_c + (b * H + g) * L * width, lm[:, None], d[None, :], width, L, width, UPCAST
            )
            turned = _load(v + b * v_b + g * v_h, n[None, :], d[:, None], v_n, N, width, UPCAST)
            grad_mixed = tl.dot(upstream, turned, input_precision=PRECISION)
            more, more_mix = (), ()
            for i in tl.static_range(GROUP):
                more = more + (grads[i] + _weight(mix, g, i0 + i, H, MIXED) * grad_mixed,)
                if STATISTICS and MIXED:
                    inner = tl.sum(tl.sum(own_tiles[i] * grad_mixed, 1), 0)
                    more_mix = more_mix + (mix_sums[i] + tl.where(heads == g, inner, 0.0)[None, :],)
            grads = more
            if STATISTICS and MIXED:
                mix_sums = more_mix
        more = ()
        for i in tl.static_range(GROUP):
            own = tl.minimum(i0 + i, H - 1)
            if STATISTICS:
                more = more + (inner_sums[i] + tl.sum(own_tiles[i] * grads[i], 1)[:, None],)
            else:
                whole = tl.load(inner_sum + (b * H + own) * L + lm, mask=lm < L, other=0.0)
                grad_scores = own_tiles[i] * (grads[i] - whole[:, None]) * scale
                rows = _load(
                    q_l + (b * H + own) * L * width, lm[:, None], d[None, :], width, L, width, UPCAST
                )
                tile = tl.dot(tl.trans(grad_scores.to(rows.dtype)), rows, input_precision=PRECISION)
                _store(
                    grad_k + b * dk_b + own * dk_h,
                    n[:, None],
                    d[None, :],
                    dk_n,
                    _if_head(i0 + i, H, N),
                    width,
                    tile,
                )
                keys = _load(k + b * k_b + own * k_h, n[:, None], d[None, :], k_n, N, width, UPCAST)
                more = more + (tl.dot(grad_scores.to(keys.dtype), keys, sums[i], input_precision=PRECISION),)
        if STATISTICS:
            inner_sums = more
        else:
            sums = more
    place = split * tl.num_programs(2) + b
    for i in tl.static_range(GROUP):
        if STATISTICS:
            row = part_sum + (place * H + i0 + i) * L + lm[:, None]
            tl.store(row, inner_sums[i], mask=lm[:, None] < _if_head(i0 + i, H, L))
            if MIXED:
                column = part_mix + place * H * H + heads[None, :] * H + i0 + i
                tl.store(column, mix_sums[i], mask=heads[None, :] < _if_head(i0 + i, H, H))
        else:
            base = part_q_l + (place * H + i0 + i) * L * width
            _store(base, lm[:, None], d[None, :], width, _if_head(i0 + i, H, L), width, sums[i])

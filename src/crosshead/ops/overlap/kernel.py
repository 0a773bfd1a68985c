# mypy: ignore-errors
"""Overlapped heads fused for GPUs, in Triton: a head's window is read where it lies, in the packed rows of qkv.

The channels of a row (B, N, 3, h, d) of one of q, k, v lie head by head, so that head i's window begins ``o`` channels
before its own and ends ``o`` behind them: the neighbours' are the next addresses, and what lies before the first head
and behind the last is zero. Nothing is copied, and nothing of size N² leaves the registers.

A tile's columns are the window inside a wider one that begins ``pad`` >= o channels before the head, so that a load
begins at whole vectors; columns beyond the window are zero in Q' and in the gradient of the output, and are never
stored. Half-precision tiles are multiplied as they are, with float32 sums; UPCAST turns them into float32 first, for
Triton's interpreter, whose bfloat16 arithmetic is wrong.

    O_i = softmax(s Q'_i K'_i^T + bias_i + mask) V'_i                 forward
    dV'_i = P^T dO_i,  dS = P ∘ (dO_i V'_i^T - delta),  dK'_i = s dS^T Q'_i,  dQ'_i = s dS K'_i

``grad_keys``, ``grad_queries`` and ``grad_bias`` form P again from ``log_sums`` (B, h, N), each for the sums that it
owns: no sum is shared between programs, so that its order never changes. ``overlap_add`` turns the windows' gradients
into those of the channels.
"""

import triton
import triton.language as tl


@triton.jit
def _window(base, tokens, columns, row, N, head, heads, pad, d: tl.constexpr, UPCAST: tl.constexpr):
    """Channels of a wide window, zero where there is no token or no head; ``base`` is where its columns begin."""
    channel = head * d + columns - pad
    there = (tokens < N) & (channel >= 0) & (channel < heads * d) & (columns < 2 * pad + d)
    tile = tl.load(base + tokens.to(tl.int64) * row + columns, mask=there, other=0.0)
    return tile.to(tl.float32) if UPCAST else tile


@triton.jit
def _inside(columns, pad, o: tl.constexpr, d: tl.constexpr):
    """Which columns of a wide window are the window's."""
    return (columns >= pad - o) & (columns < pad + d + o)


@triton.jit
def _queries(q, gain, columns, head, pad, o: tl.constexpr, d: tl.constexpr, GAIN: tl.constexpr):
    """Q' of a wide window of queries: gains on its borrowed columns, zero beyond."""
    inside = _inside(columns, pad, o, d)
    if GAIN:
        return (q * _factors(gain, columns, head, pad, o, d)).to(q.dtype)
    return tl.where(inside, q, 0.0).to(q.dtype)


@triton.jit
def _factors(gain, columns, head, pad, o: tl.constexpr, d: tl.constexpr):
    """What multiplies each column of queries: 1 for the own ones, 0 beyond the window."""
    place = columns - (pad - o)
    borrowed = _inside(columns, pad, o, d) & ((place < o) | (place >= o + d))
    learned = tl.load(
        gain + head * 2 * o + tl.where(place < o, place, place - d), mask=borrowed, other=1.0
    ).to(tl.float32)
    return tl.where(_inside(columns, pad, o, d), learned, 0.0)


@triton.jit
def _added(
    scores, bias, mask, m, n, head, image, N, bias_h, mask_b, mask_h, mask_m, mask_n, images,
    BIAS: tl.constexpr, MASK: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """Logits in units of log 2, with what is added to them; minus infinity where a pair may not meet."""
    LOG2E: tl.constexpr = 1.4426950408889634
    there = (m < N) & (n < N)
    m, n = m.to(tl.int64), n.to(tl.int64)
    if BIAS:
        scores += tl.load(bias + head * bias_h + m * N + n, mask=there, other=0.0).to(tl.float32) * LOG2E
    if MASK:
        place = mask + (image % images) * mask_b + head * mask_h + m * mask_m + n * mask_n
        scores += tl.load(place, mask=there, other=0.0).to(tl.float32) * LOG2E
    if CAUSAL:
        there = there & (n <= m)
    return tl.where(there, scores, float("-inf"))


@triton.jit
def _kept(seed, m, n, head, image, heads, N, p):
    """0 for weights that are dropped, 1 / (1 - p) for the others."""
    number = tl.rand(tl.load(seed) + image * heads + head, m * N + n)
    return tl.where(number >= p, 1.0 / (1.0 - p), 0.0)


@triton.jit
def attend(
    qkv, gain, bias, mask, seed, out, log_sums, qkv_b, qkv_n, bias_h, mask_b, mask_h, mask_m, mask_n, images,
    heads, N, scale, p, pad, d: tl.constexpr, o: tl.constexpr, COLUMNS: tl.constexpr, QUERIES: tl.constexpr,
    KEYS: tl.constexpr, GAIN: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr, CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head of one image: its heads' output (B, N, h, d + 2·o) and log sums (B, h, N)."""
    LOG2E: tl.constexpr = 1.4426950408889634
    WIDTH: tl.constexpr = d + 2 * o
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    m, c = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES), tl.arange(0, COLUMNS)
    row = qkv + image * qkv_b + head * d - pad
    q = _window(row, m[:, None], c[None, :], qkv_n, N, head, heads, pad, d, UPCAST)
    q = _queries(q, gain, c[None, :], head, pad, o, d, GAIN)
    top = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    summed = tl.zeros((QUERIES, COLUMNS), tl.float32)
    end = tl.minimum(N, (tl.program_id(0) + 1) * QUERIES) if CAUSAL else N
    for first in range(0, end, KEYS):
        n = first + tl.arange(0, KEYS)
        k = _window(row + heads * d, n[None, :], c[:, None], qkv_n, N, head, heads, pad, d, UPCAST)
        scores = tl.dot(q, k, input_precision="ieee") * (scale * LOG2E)
        scores = _added(
            scores, bias, mask, m[:, None], n[None, :], head, image, N, bias_h, mask_b, mask_h, mask_m, mask_n,
            images, BIAS, MASK, CAUSAL,
        )  # fmt: skip
        higher = tl.maximum(top, tl.max(scores, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # no key so far: nothing to compare with
        weights, shrink = tl.exp2(scores - base[:, None]), tl.exp2(top - base)
        total = total * shrink + tl.sum(weights, 1)
        if DROPOUT:
            weights = weights * _kept(seed, m[:, None], n[None, :], head, image, heads, N, p)
        v = _window(row + 2 * heads * d, n[:, None], c[None, :], qkv_n, N, head, heads, pad, d, UPCAST)
        summed = tl.dot(weights.to(v.dtype), v, summed * shrink[:, None], input_precision="ieee")
        top = higher
    alone = total == 0.0  # a query without a key attends to nothing, and sends no gradient
    summed = summed / tl.where(alone, 1.0, total)[:, None]
    place = c - (pad - o)
    where = out + ((image * N + m[:, None]) * heads + head) * WIDTH + place[None, :]
    tl.store(
        where,
        summed.to(out.dtype.element_ty),
        mask=(m[:, None] < N) & (place[None, :] >= 0) & (place[None, :] < WIDTH),
    )
    sums = tl.where(alone, float("inf"), top + tl.log2(tl.where(alone, 1.0, total)))
    tl.store(log_sums + (image * heads + head) * N + m, sums, mask=m < N)


@triton.jit
def row_products(out, grad_out, delta, heads, N, WIDTH, QUERIES: tl.constexpr, COLUMNS: tl.constexpr):
    """delta (B, h, N): the sum over the channels of O ∘ dO, which is that over the keys of P ∘ dP."""
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    m, c = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES), tl.arange(0, COLUMNS)
    where = ((image * N + m[:, None]) * heads + head) * WIDTH + c[None, :]
    there = (m[:, None] < N) & (c[None, :] < WIDTH)
    x = tl.load(out + where, mask=there, other=0.0).to(tl.float32)
    g = tl.load(grad_out + where, mask=there, other=0.0).to(tl.float32)
    tl.store(delta + (image * heads + head) * N + m, tl.sum(x * g, 1), mask=m < N)


@triton.jit
def _grad_rows(
    grad_out,
    tokens,
    columns,
    image,
    head,
    heads,
    N,
    pad,
    o: tl.constexpr,
    d: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """dO in the columns of a wide window, zero beyond the window."""
    WIDTH: tl.constexpr = d + 2 * o
    where = grad_out + ((image * N + tokens) * heads + head) * WIDTH + columns - (pad - o)
    tile = tl.load(where, mask=(tokens < N) & _inside(columns, pad, o, d), other=0.0)
    return tile.to(tl.float32) if UPCAST else tile


@triton.jit
def grad_keys(
    qkv, gain, bias, mask, seed, grad_out, log_sums, delta, grads, qkv_b, qkv_n, bias_h, mask_b, mask_h, mask_m,
    mask_n, images, heads, N, scale, p, pad, d: tl.constexpr, o: tl.constexpr, COLUMNS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, GAIN: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr,
    CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """dK' and dV' of one block of keys, into ``grads`` (B, N, 3, h, d + 2·o)."""
    LOG2E: tl.constexpr = 1.4426950408889634
    WIDTH: tl.constexpr = d + 2 * o
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    n, c = tl.program_id(0) * KEYS + tl.arange(0, KEYS), tl.arange(0, COLUMNS)
    row = qkv + image * qkv_b + head * d - pad
    k = _window(row + heads * d, n[:, None], c[None, :], qkv_n, N, head, heads, pad, d, UPCAST)
    v = _window(row + 2 * heads * d, n[:, None], c[None, :], qkv_n, N, head, heads, pad, d, UPCAST)
    grad_k = tl.zeros((KEYS, COLUMNS), tl.float32)
    grad_v = tl.zeros((KEYS, COLUMNS), tl.float32)
    begin = (tl.program_id(0) * KEYS // QUERIES) * QUERIES if CAUSAL else 0
    for first in range(begin, N, QUERIES):
        m = first + tl.arange(0, QUERIES)
        q = _window(row, m[:, None], c[None, :], qkv_n, N, head, heads, pad, d, UPCAST)
        q = _queries(q, gain, c[None, :], head, pad, o, d, GAIN)
        g = _grad_rows(grad_out, m[:, None], c[None, :], image, head, heads, N, pad, o, d, UPCAST)
        sums = tl.load(log_sums + (image * heads + head) * N + m, mask=m < N, other=float("inf"))
        inner = tl.load(delta + (image * heads + head) * N + m, mask=m < N, other=0.0)
        scores = tl.dot(k, tl.trans(q), input_precision="ieee") * (scale * LOG2E)  # (KEYS, QUERIES)
        scores = _added(
            scores, bias, mask, m[None, :], n[:, None], head, image, N, bias_h, mask_b, mask_h, mask_m, mask_n,
            images, BIAS, MASK, CAUSAL,
        )  # fmt: skip
        weights = tl.exp2(scores - sums[None, :])
        grad_weights = tl.dot(v, tl.trans(g), input_precision="ieee")
        used = weights
        if DROPOUT:
            kept = _kept(seed, m[None, :], n[:, None], head, image, heads, N, p)
            used, grad_weights = weights * kept, grad_weights * kept
        grad_v = tl.dot(used.to(g.dtype), g, grad_v, input_precision="ieee")
        grad_scores = weights * (grad_weights - inner[None, :])
        grad_k = tl.dot(grad_scores.to(q.dtype), q, grad_k, input_precision="ieee")
    where = grads + ((image * N + n[:, None]) * 3 * heads + head) * WIDTH + c[None, :] - (pad - o)
    there = (n[:, None] < N) & _inside(c[None, :], pad, o, d)
    tl.store(where + heads * WIDTH, (grad_k * scale).to(grads.dtype.element_ty), mask=there)
    tl.store(where + 2 * heads * WIDTH, grad_v.to(grads.dtype.element_ty), mask=there)


@triton.jit
def grad_queries(
    qkv, gain, bias, mask, seed, grad_out, log_sums, delta, grads, grad_gain, qkv_b, qkv_n, bias_h, mask_b, mask_h,
    mask_m, mask_n, images, heads, N, scale, p, pad, d: tl.constexpr, o: tl.constexpr, COLUMNS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, GAIN: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr,
    CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """dQ' of one block of queries, into ``grads``, and its part of the gains' gradient (B, blocks, h, COLUMNS)."""
    LOG2E: tl.constexpr = 1.4426950408889634
    WIDTH: tl.constexpr = d + 2 * o
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    m, c = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES), tl.arange(0, COLUMNS)
    row = qkv + image * qkv_b + head * d - pad
    read = _window(row, m[:, None], c[None, :], qkv_n, N, head, heads, pad, d, UPCAST)
    q = _queries(read, gain, c[None, :], head, pad, o, d, GAIN)
    g = _grad_rows(grad_out, m[:, None], c[None, :], image, head, heads, N, pad, o, d, UPCAST)
    sums = tl.load(log_sums + (image * heads + head) * N + m, mask=m < N, other=float("inf"))
    inner = tl.load(delta + (image * heads + head) * N + m, mask=m < N, other=0.0)
    grad_q = tl.zeros((QUERIES, COLUMNS), tl.float32)
    end = tl.minimum(N, (tl.program_id(0) + 1) * QUERIES) if CAUSAL else N
    for first in range(0, end, KEYS):
        n = first + tl.arange(0, KEYS)
        k = _window(row + heads * d, n[:, None], c[None, :], qkv_n, N, head, heads, pad, d, UPCAST)
        v = _window(row + 2 * heads * d, n[None, :], c[:, None], qkv_n, N, head, heads, pad, d, UPCAST)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2E)
        scores = _added(
            scores, bias, mask, m[:, None], n[None, :], head, image, N, bias_h, mask_b, mask_h, mask_m, mask_n,
            images, BIAS, MASK, CAUSAL,
        )  # fmt: skip
        weights = tl.exp2(scores - sums[:, None])
        grad_weights = tl.dot(g, v, input_precision="ieee")
        if DROPOUT:
            grad_weights = grad_weights * _kept(seed, m[:, None], n[None, :], head, image, heads, N, p)
        grad_scores = weights * (grad_weights - inner[:, None])
        grad_q = tl.dot(grad_scores.to(k.dtype), k, grad_q, input_precision="ieee")
    grad_q = grad_q * scale
    if GAIN:
        part = tl.sum(tl.where(m[:, None] < N, grad_q * read.to(tl.float32), 0.0), 0)
        blocks = tl.num_programs(0)
        tl.store(grad_gain + ((image * blocks + tl.program_id(0)) * heads + head) * COLUMNS + c, part)
        grad_q = grad_q * _factors(gain, c[None, :], head, pad, o, d)
    where = grads + ((image * N + m[:, None]) * 3 * heads + head) * WIDTH + c[None, :] - (pad - o)
    tl.store(where, grad_q.to(grads.dtype.element_ty), mask=(m[:, None] < N) & _inside(c[None, :], pad, o, d))


@triton.jit
def grad_bias(
    qkv, gain, bias, mask, seed, grad_out, log_sums, delta, grad, batch, qkv_b, qkv_n, bias_h, mask_b, mask_h,
    mask_m, mask_n, images, heads, N, scale, p, pad, d: tl.constexpr, o: tl.constexpr, COLUMNS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, GAIN: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr,
    CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The gradient of one block of one head's bias (h, N, N), summed over a share of the images in their order.

    ``grad`` (shares, h, N, N): a program takes the images of its share, every ``shares``-th one.
    """
    LOG2E: tl.constexpr = 1.4426950408889634
    blocks = tl.cdiv(N, KEYS)
    head, share, shares = tl.program_id(1), tl.program_id(2), tl.num_programs(2)
    m = tl.program_id(0) // blocks * QUERIES + tl.arange(0, QUERIES)
    n = tl.program_id(0) % blocks * KEYS + tl.arange(0, KEYS)
    c = tl.arange(0, COLUMNS)
    total = tl.zeros((QUERIES, KEYS), tl.float32)
    image = share.to(tl.int64)
    for _ in range(share, batch, shares):
        row = qkv + image * qkv_b + head * d - pad
        q = _window(row, m[:, None], c[None, :], qkv_n, N, head, heads, pad, d, UPCAST)
        q = _queries(q, gain, c[None, :], head, pad, o, d, GAIN)
        g = _grad_rows(grad_out, m[:, None], c[None, :], image, head, heads, N, pad, o, d, UPCAST)
        k = _window(row + heads * d, n[None, :], c[:, None], qkv_n, N, head, heads, pad, d, UPCAST)
        v = _window(row + 2 * heads * d, n[None, :], c[:, None], qkv_n, N, head, heads, pad, d, UPCAST)
        sums = tl.load(log_sums + (image * heads + head) * N + m, mask=m < N, other=float("inf"))
        inner = tl.load(delta + (image * heads + head) * N + m, mask=m < N, other=0.0)
        scores = tl.dot(q, k, input_precision="ieee") * (scale * LOG2E)
        scores = _added(
            scores, bias, mask, m[:, None], n[None, :], head, image, N, bias_h, mask_b, mask_h, mask_m, mask_n,
            images, BIAS, MASK, CAUSAL,
        )  # fmt: skip
        grad_weights = tl.dot(g, v, input_precision="ieee")
        if DROPOUT:
            grad_weights = grad_weights * _kept(seed, m[:, None], n[None, :], head, image, heads, N, p)
        total += tl.exp2(scores - sums[:, None]) * (grad_weights - inner[:, None])
        image += shares
    there = (m[:, None] < N) & (n[None, :] < N)
    where = grad + ((share * heads + head) * N + m[:, None].to(tl.int64)) * N + n[None, :]
    tl.store(where, total, mask=there)


@triton.jit
def overlap_add(windows, grad, rows, heads, d, o, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """grad (rows, h·d), each channel the sum of what the windows (rows, h, d + 2·o) that read it hold."""
    width = d + 2 * o
    r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    x = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    head, place = x // d, x % d
    there = (r[:, None] < rows) & (x[None, :] < heads * d)
    row = windows + r[:, None] * (heads * width)
    own = tl.load(row + (head * width + o + place)[None, :], mask=there, other=0.0).to(tl.float32)
    next_reads = (head < heads - 1) & (place >= d - o)
    lent = tl.load(
        row + ((head + 1) * width + place - (d - o))[None, :], mask=there & next_reads[None, :], other=0.0
    ).to(tl.float32)
    previous_reads = (head > 0) & (place < o)
    back = tl.load(
        row + ((head - 1) * width + o + d + place)[None, :], mask=there & previous_reads[None, :], other=0.0
    ).to(tl.float32)
    tl.store(
        grad + r[:, None] * (heads * d) + x[None, :],
        (own + lent + back).to(grad.dtype.element_ty),
        mask=there,
    )


@triton.jit
def dropout_factors(seed, out, heads, N, p, SIZE: tl.constexpr):
    """The factors (B, h, N, N) that the other kernels drop weights with, for the equations to be compared with."""
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    head, image = tl.program_id(1), tl.program_id(2)
    m, n = place // N, place % N
    kept = _kept(seed, m, n, head, image.to(tl.int64), heads, N, p)
    tl.store(out + (image * heads + head) * N * N + place, kept, mask=place < N * N)

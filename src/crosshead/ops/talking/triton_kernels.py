# mypy: ignore-errors
"""Talking heads fused for GPUs, in Triton: all heads of a few queries in one program, and both mixings in registers.

A tile holds what ``h`` heads (rounded up to HEADS) have of some queries and some keys, (HEADS, QUERIES, KEYS) in
float32; nothing of size N² leaves the registers. Products of half precision have float32 sums; logits and weights are
mixed as float32, in TF32. UPCAST turns half-precision operands into float32 first, for Triton's
interpreter, whose bfloat16 arithmetic is wrong.

    L_i = s Q_i K_i^T + B_i       X_g = sum_i pre[g, i] L_i + M       P_g = softmax(X_g)
    A_g = (sum_i post[g, i] P_i + b[g]) ∘ D, 0 where M closes         O_g = A_g V_g

The mixed weights need the sums of all heads' softmax first, so ``attend`` goes over the keys twice. Backward, with
G_g = D ∘ dO_g V_g^T where M is open::

    dP_i = sum_g post[g, i] G_g        dX_i = P_i ∘ (dP_i - delta_i)    delta_i = sum over the keys of P_i ∘ dP_i
    dL_i = sum_g pre[g, i] dX_g        dQ_i = s dL_i K_i    dK_i = s dL_i^T Q_i    dV_g = A_g^T dO_g

``grad_queries`` owns a block of queries and goes over the keys twice, for delta and then for dQ and its share of the
mixings' gradients; ``grad_keys`` owns a block of keys; ``grad_bias`` a block of both, for a share of the images. No sum
is shared between programs, so that its order never changes.
"""

import triton
import triton.language as tl


@triton.jit
def _heads(x, head, token, channel, x_h, x_n, heads, N, width, UPCAST: tl.constexpr):
    """What heads have of some tokens, on the axes of ``head``, ``token`` and ``channel``; zero where there is none."""
    there = (head < heads) & (token < N) & (channel < width)
    tile = tl.load(x + head * x_h + token.to(tl.int64) * x_n + channel, mask=there, other=0.0)
    return tile.to(tl.float32) if UPCAST else tile


@triton.jit
def _mixing(weight, heads, HEADS: tl.constexpr, TURNED: tl.constexpr):
    """An (h, h) matrix of shares, or its transpose, as a product of 16 rows takes it: W ⊗ 1, zero beyond the heads.

    A tile of fewer heads is read as 16 rows, ROWS for each head. A row is mixed with the same row of each other head.
    """
    ROWS: tl.constexpr = 16 // HEADS
    to, of = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    g, i = (of // ROWS, to // ROWS) if TURNED else (to // ROWS, of // ROWS)
    there = (g < heads) & (i < heads) & (to % ROWS == of % ROWS)
    return tl.load(weight + g * heads + i, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _mix(shares, x, HEADS: tl.constexpr, A: tl.constexpr, B: tl.constexpr):
    """sum_i shares[g, i] x[i] of a tile x (HEADS, A, B)."""
    rows = tl.reshape(x, (16, HEADS * A * B // 16))
    return tl.reshape(tl.dot(shares, rows, input_precision="tf32"), (HEADS, A, B))


@triton.jit
def _shares(grad, x, HEADS: tl.constexpr, A: tl.constexpr, B: tl.constexpr):
    """The gradient (16, 16) of the product that mixed ``x``; that of W are its entries of equal rows."""
    rows = tl.reshape(x, (16, HEADS * A * B // 16))
    return tl.dot(tl.reshape(grad, (16, HEADS * A * B // 16)), tl.trans(rows), input_precision="tf32")


@triton.jit
def _logits(product, bias, head, m, n, heads, N, scale, BIAS: tl.constexpr):
    """L of a tile of products Q K^T."""
    logits = product * scale
    if BIAS:
        there = (head < heads) & (m < N) & (n < N)
        place = (head.to(tl.int64) * N + m) * N + n
        logits += tl.load(bias + place, mask=there, other=0.0).to(tl.float32)
    return logits


@triton.jit
def _added(
    mixed, mask, image, m, n, N, mask_b, mask_m, mask_n, images, MASK: tl.constexpr, CAUSAL: tl.constexpr
):
    """Mixed logits in units of log 2, with what is added to them; minus infinity where a pair may not meet."""
    LOG2E: tl.constexpr = 1.4426950408889634
    there = (m < N) & (n < N)
    mixed = mixed * LOG2E
    if MASK:
        place = mask + (image % images) * mask_b + m.to(tl.int64) * mask_m + n.to(tl.int64) * mask_n
        mixed += tl.load(place, mask=there, other=0.0).to(tl.float32) * LOG2E
    if CAUSAL:
        there = there & (n <= m)
    return tl.where(there, mixed, float("-inf"))


@triton.jit
def _kept(seed, head, m, n, image, heads, N, p):
    """D: 0 for weights that are dropped, 1 / (1 - p) for the others."""
    place = m * N + n
    drawn, _, _, _ = tl.philox(tl.load(seed) + image, place, place * 0 + head, place * 0, place * 0)
    return tl.where(tl.uint_to_uniform_float(drawn) >= p, 1.0 / (1.0 - p), 0.0)


@triton.jit
def attend(
    q, k, v, pre, post, post_bias, bias, mask, seed, out, log_sums, q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n,
    mask_b, mask_m, mask_n, images, heads, N, width, scale, p, HEADS: tl.constexpr, COLUMNS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr, CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """One block of queries of one image: all heads' output (B, N, h, c) and log sums (B, h, N)."""
    blocks = tl.cdiv(N, QUERIES)
    block, image = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    h, c = tl.arange(0, HEADS), tl.arange(0, COLUMNS)
    m = block * QUERIES + tl.arange(0, QUERIES)
    head, row, channel = h[:, None, None], m[None, :, None], c[None, None, :]
    queries = _heads(q + image * q_b, head, row, channel, q_h, q_n, heads, N, width, UPCAST)
    before, after = _mixing(pre, heads, HEADS, False), _mixing(post, heads, HEADS, False)
    end = tl.minimum(N, (block + 1) * QUERIES) if CAUSAL else N

    top = tl.full((HEADS, QUERIES), float("-inf"), tl.float32)
    total = tl.zeros((HEADS, QUERIES), tl.float32)
    for first in range(0, end, KEYS):
        n = first + tl.arange(0, KEYS)
        keys = _heads(
            k + image * k_b, head, n[None, None, :], c[None, :, None], k_h, k_n, heads, N, width, UPCAST
        )
        product = tl.dot(queries, keys, input_precision="ieee")
        logits = _logits(product, bias, head, row, n[None, None, :], heads, N, scale, BIAS)
        mixed = _added(
            _mix(before, logits, HEADS, QUERIES, KEYS), mask, image, row, n[None, None, :], N, mask_b, mask_m,
            mask_n, images, MASK, CAUSAL,
        )  # fmt: skip
        higher = tl.maximum(top, tl.max(mixed, 2))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # no key so far: nothing to compare with
        total = total * tl.exp2(top - base) + tl.sum(tl.exp2(mixed - base[:, :, None]), 2)
        top = higher
    alone = total == 0.0  # a query without a key attends to nothing, and sends no gradient
    sums = tl.where(alone, float("inf"), top + tl.log2(tl.where(alone, 1.0, total)))

    added = tl.load(post_bias + h, mask=h < heads, other=0.0).to(tl.float32)[:, None, None]
    summed = tl.zeros((HEADS, QUERIES, COLUMNS), tl.float32)
    for first in range(0, end, KEYS):
        n = first + tl.arange(0, KEYS)
        keys = _heads(
            k + image * k_b, head, n[None, None, :], c[None, :, None], k_h, k_n, heads, N, width, UPCAST
        )
        product = tl.dot(queries, keys, input_precision="ieee")
        logits = _logits(product, bias, head, row, n[None, None, :], heads, N, scale, BIAS)
        mixed = _added(
            _mix(before, logits, HEADS, QUERIES, KEYS), mask, image, row, n[None, None, :], N, mask_b, mask_m,
            mask_n, images, MASK, CAUSAL,
        )  # fmt: skip
        weights = _mix(after, tl.exp2(mixed - sums[:, :, None]), HEADS, QUERIES, KEYS) + added
        weights = tl.where(mixed == float("-inf"), 0.0, weights)
        if DROPOUT:
            weights = weights * _kept(seed, head, row, n[None, None, :], image, heads, N, p)
        values = _heads(v + image * v_b, head, n[None, :, None], channel, v_h, v_n, heads, N, width, UPCAST)
        summed = tl.dot(weights.to(values.dtype), values, summed, input_precision="ieee")
    there = (head < heads) & (row < N)
    where = out + ((image * N + row) * heads + head) * width + channel
    tl.store(where, summed.to(out.dtype.element_ty), mask=there & (channel < width))
    inside = (h[:, None] < heads) & (m[None, :] < N)
    tl.store(log_sums + (image * heads + h[:, None]) * N + m[None, :], sums, mask=inside)


@triton.jit
def grad_queries(
    q, k, v, pre, post, post_bias, bias, mask, seed, grad_out, log_sums, delta, grad_q, grad_mixing, q_b, q_h, q_n,
    k_b, k_h, k_n, v_b, v_h, v_n, mask_b, mask_m, mask_n, images, heads, N, width, scale, p, HEADS: tl.constexpr,
    COLUMNS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr,
    CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """One block of queries: delta (B, h, N), dQ (B, N, h, c), and its part of the mixings' gradients.

    ``grad_mixing`` (B, blocks, 33, 16): that of ``pre`` and of ``post``, as ``_shares`` has them, and of ``post_bias``.
    """
    blocks = tl.cdiv(N, QUERIES)
    block, image = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    h, c = tl.arange(0, HEADS), tl.arange(0, COLUMNS)
    m = block * QUERIES + tl.arange(0, QUERIES)
    head, row, channel = h[:, None, None], m[None, :, None], c[None, None, :]
    queries = _heads(q + image * q_b, head, row, channel, q_h, q_n, heads, N, width, UPCAST)
    grads = _heads(
        grad_out + image * N * heads * width,
        head,
        row,
        channel,
        width,
        heads * width,
        heads,
        N,
        width,
        UPCAST,
    )
    before = _mixing(pre, heads, HEADS, False)
    before_turned, after_turned = _mixing(pre, heads, HEADS, True), _mixing(post, heads, HEADS, True)
    inside = (h[:, None] < heads) & (m[None, :] < N)
    line = (image * heads + h[:, None]) * N + m[None, :]
    sums = tl.load(log_sums + line, mask=inside, other=float("inf"))[:, :, None]
    end = tl.minimum(N, (block + 1) * QUERIES) if CAUSAL else N

    inner = tl.zeros((HEADS, QUERIES), tl.float32)
    for first in range(0, end, KEYS):
        n = first + tl.arange(0, KEYS)
        column = n[None, None, :]
        keys = _heads(k + image * k_b, head, column, c[None, :, None], k_h, k_n, heads, N, width, UPCAST)
        values = _heads(v + image * v_b, head, column, c[None, :, None], v_h, v_n, heads, N, width, UPCAST)
        product = tl.dot(queries, keys, input_precision="ieee")
        logits = _logits(product, bias, head, row, column, heads, N, scale, BIAS)
        mixed = _added(
            _mix(before, logits, HEADS, QUERIES, KEYS), mask, image, row, column, N, mask_b, mask_m, mask_n, images,
            MASK, CAUSAL,
        )  # fmt: skip
        grad_weights = tl.where(mixed == float("-inf"), 0.0, tl.dot(grads, values, input_precision="ieee"))
        if DROPOUT:
            grad_weights = grad_weights * _kept(seed, head, row, column, image, heads, N, p)
        inner += tl.sum(tl.exp2(mixed - sums) * _mix(after_turned, grad_weights, HEADS, QUERIES, KEYS), 2)
    tl.store(delta + line, inner, mask=inside)

    summed = tl.zeros((HEADS, QUERIES, COLUMNS), tl.float32)
    grad_pre, grad_post = tl.zeros((16, 16), tl.float32), tl.zeros((16, 16), tl.float32)
    grad_bias = tl.zeros((HEADS,), tl.float32)
    for first in range(0, end, KEYS):
        n = first + tl.arange(0, KEYS)
        column = n[None, None, :]
        keys = _heads(k + image * k_b, head, column, c[None, :, None], k_h, k_n, heads, N, width, UPCAST)
        values = _heads(v + image * v_b, head, column, c[None, :, None], v_h, v_n, heads, N, width, UPCAST)
        product = tl.dot(queries, keys, input_precision="ieee")
        logits = _logits(product, bias, head, row, column, heads, N, scale, BIAS)
        mixed = _added(
            _mix(before, logits, HEADS, QUERIES, KEYS), mask, image, row, column, N, mask_b, mask_m, mask_n, images,
            MASK, CAUSAL,
        )  # fmt: skip
        weights = tl.exp2(mixed - sums)
        grad_weights = tl.where(mixed == float("-inf"), 0.0, tl.dot(grads, values, input_precision="ieee"))
        if DROPOUT:
            grad_weights = grad_weights * _kept(seed, head, row, column, image, heads, N, p)
        grad_bias += tl.sum(tl.sum(grad_weights, 2), 1)
        grad_post += _shares(grad_weights, weights, HEADS, QUERIES, KEYS)
        grad_mixed = weights * (_mix(after_turned, grad_weights, HEADS, QUERIES, KEYS) - inner[:, :, None])
        grad_pre += _shares(grad_mixed, logits, HEADS, QUERIES, KEYS)
        grad_logits = _mix(before_turned, grad_mixed, HEADS, QUERIES, KEYS)
        summed = tl.dot(
            grad_logits.to(keys.dtype), tl.permute(keys, (0, 2, 1)), summed, input_precision="ieee"
        )
    where = grad_q + ((image * N + row) * heads + head) * width + channel
    there = (head < heads) & (row < N) & (channel < width)
    tl.store(where, (summed * scale).to(grad_q.dtype.element_ty), mask=there)
    part = grad_mixing + tl.program_id(0).to(tl.int64) * 33 * 16
    square = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(part + square, grad_pre)
    tl.store(part + 256 + square, grad_post)
    tl.store(part + 512 + h, grad_bias)


@triton.jit
def grad_keys(
    q, k, v, pre, post, post_bias, bias, mask, seed, grad_out, log_sums, delta, grad_k, grad_v, q_b, q_h, q_n, k_b,
    k_h, k_n, v_b, v_h, v_n, mask_b, mask_m, mask_n, images, heads, N, width, scale, p, HEADS: tl.constexpr,
    COLUMNS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr,
    CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """dK and dV (B, N, h, c) of one block of keys; its tiles lie the other way round, (HEADS, KEYS, QUERIES)."""
    blocks = tl.cdiv(N, KEYS)
    block, image = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    h, c = tl.arange(0, HEADS), tl.arange(0, COLUMNS)
    n = block * KEYS + tl.arange(0, KEYS)
    head, column, channel = h[:, None, None], n[None, :, None], c[None, None, :]
    keys = _heads(k + image * k_b, head, column, channel, k_h, k_n, heads, N, width, UPCAST)
    values = _heads(v + image * v_b, head, column, channel, v_h, v_n, heads, N, width, UPCAST)
    before, after = _mixing(pre, heads, HEADS, False), _mixing(post, heads, HEADS, False)
    before_turned, after_turned = _mixing(pre, heads, HEADS, True), _mixing(post, heads, HEADS, True)
    added = tl.load(post_bias + h, mask=h < heads, other=0.0).to(tl.float32)[:, None, None]
    summed_k = tl.zeros((HEADS, KEYS, COLUMNS), tl.float32)
    summed_v = tl.zeros((HEADS, KEYS, COLUMNS), tl.float32)
    begin = (block * KEYS // QUERIES) * QUERIES if CAUSAL else 0
    for first in range(begin, N, QUERIES):
        m = first + tl.arange(0, QUERIES)
        row = m[None, None, :]
        if DROPOUT:  # first, where little else is in registers
            kept = _kept(seed, head, row, column, image, heads, N, p)
        queries = _heads(q + image * q_b, head, row, c[None, :, None], q_h, q_n, heads, N, width, UPCAST)
        grads = _heads(
            grad_out + image * N * heads * width, head, row, c[None, :, None], width, heads * width, heads, N,
            width, UPCAST,
        )  # fmt: skip
        inside = (h[:, None] < heads) & (m[None, :] < N)
        line = (image * heads + h[:, None]) * N + m[None, :]
        sums = tl.load(log_sums + line, mask=inside, other=float("inf"))[:, None, :]
        product = tl.dot(keys, queries, input_precision="ieee")
        logits = _logits(product, bias, head, row, column, heads, N, scale, BIAS)
        mixed = _added(
            _mix(before, logits, HEADS, KEYS, QUERIES), mask, image, row, column, N, mask_b, mask_m, mask_n, images,
            MASK, CAUSAL,
        )  # fmt: skip
        shut = mixed == float("-inf")
        weights = tl.exp2(mixed - sums)
        used = tl.where(shut, 0.0, _mix(after, weights, HEADS, KEYS, QUERIES) + added)
        if DROPOUT:
            used = used * kept
        summed_v = tl.dot(
            used.to(grads.dtype), tl.permute(grads, (0, 2, 1)), summed_v, input_precision="ieee"
        )
        grad_weights = tl.where(shut, 0.0, tl.dot(values, grads, input_precision="ieee"))
        if DROPOUT:
            grad_weights = grad_weights * kept
        inner = tl.load(delta + line, mask=inside, other=0.0)[:, None, :]
        grad_mixed = weights * (_mix(after_turned, grad_weights, HEADS, KEYS, QUERIES) - inner)
        grad_logits = _mix(before_turned, grad_mixed, HEADS, KEYS, QUERIES)
        summed_k = tl.dot(
            grad_logits.to(queries.dtype), tl.permute(queries, (0, 2, 1)), summed_k, input_precision="ieee"
        )
    where = ((image * N + column) * heads + head) * width + channel
    there = (head < heads) & (column < N) & (channel < width)
    tl.store(grad_k + where, (summed_k * scale).to(grad_k.dtype.element_ty), mask=there)
    tl.store(grad_v + where, summed_v.to(grad_v.dtype.element_ty), mask=there)


@triton.jit
def grad_bias(
    q, k, v, pre, post, post_bias, bias, mask, seed, grad_out, log_sums, delta, grad, order, batch, q_b, q_h, q_n,
    k_b, k_h, k_n, v_b, v_h, v_n, mask_b, mask_m, mask_n, images, heads, N, width, scale, p, HEADS: tl.constexpr,
    COLUMNS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr,
    CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """One block of the gradient of the bias (h, N, N), summed over a share of the images in their order.

    ``grad`` (shares, h, N, N): a program takes the images of its share, every ``shares``-th one of ``order`` (B,).
    """
    blocks = tl.cdiv(N, KEYS)
    share, shares = tl.program_id(1), tl.num_programs(1)
    h, c = tl.arange(0, HEADS), tl.arange(0, COLUMNS)
    m = tl.program_id(0) // blocks * QUERIES + tl.arange(0, QUERIES)
    n = tl.program_id(0) % blocks * KEYS + tl.arange(0, KEYS)
    head, row, column, channel = h[:, None, None], m[None, :, None], n[None, None, :], c[None, None, :]
    before = _mixing(pre, heads, HEADS, False)
    before_turned, after_turned = _mixing(pre, heads, HEADS, True), _mixing(post, heads, HEADS, True)
    inside = (h[:, None] < heads) & (m[None, :] < N)
    total = tl.zeros((HEADS, QUERIES, KEYS), tl.float32)
    for place in range(share, batch, shares):
        # Read, not counted: else the compiler keeps every address of the loop in registers of its own.
        image = tl.load(order + place).to(tl.int64)
        queries = _heads(q + image * q_b, head, row, channel, q_h, q_n, heads, N, width, UPCAST)
        grads = _heads(
            grad_out + image * N * heads * width,
            head,
            row,
            channel,
            width,
            heads * width,
            heads,
            N,
            width,
            UPCAST,
        )
        keys = _heads(k + image * k_b, head, column, c[None, :, None], k_h, k_n, heads, N, width, UPCAST)
        values = _heads(v + image * v_b, head, column, c[None, :, None], v_h, v_n, heads, N, width, UPCAST)
        line = (image * heads + h[:, None]) * N + m[None, :]
        sums = tl.load(log_sums + line, mask=inside, other=float("inf"))[:, :, None]
        inner = tl.load(delta + line, mask=inside, other=0.0)[:, :, None]
        product = tl.dot(queries, keys, input_precision="ieee")
        logits = _logits(product, bias, head, row, column, heads, N, scale, BIAS)
        mixed = _added(
            _mix(before, logits, HEADS, QUERIES, KEYS), mask, image, row, column, N, mask_b, mask_m, mask_n, images,
            MASK, CAUSAL,
        )  # fmt: skip
        grad_weights = tl.where(mixed == float("-inf"), 0.0, tl.dot(grads, values, input_precision="ieee"))
        if DROPOUT:
            grad_weights = grad_weights * _kept(seed, head, row, column, image, heads, N, p)
        grad_mixed = tl.exp2(mixed - sums) * (_mix(after_turned, grad_weights, HEADS, QUERIES, KEYS) - inner)
        total += _mix(before_turned, grad_mixed, HEADS, QUERIES, KEYS)
    there = (head < heads) & (row < N) & (column < N)
    tl.store(grad + ((share * heads + head) * N + row.to(tl.int64)) * N + column, total, mask=there)


@triton.jit
def dropout_factors(seed, out, heads, N, p, SIZE: tl.constexpr):
    """The factors D (B, h, N, N) that the other kernels drop weights with, for the equations to be compared with."""
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    head, image = tl.program_id(1), tl.program_id(2)
    kept = _kept(seed, head, place // N, place % N, image.to(tl.int64), heads, N, p)
    tl.store(out + (image * heads + head) * N * N + place, kept, mask=place < N * N)

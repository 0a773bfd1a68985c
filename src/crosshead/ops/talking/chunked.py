"""Talking heads in chunks: the attention matrices of a few images, or of a few rows of them, at a time.

A chunk stays in the cache through all its products, and the backward pass forms it again, so that nothing of size N²
outlives it. The head axis stands right after the image, where mixing is one small matrix product an image:
(h, h) by (h, rows · N). This is an operator of its own to PyTorch's compiler, which would unroll the chunks.
"""

from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..chunks import empty_token_major
from ..dropout import Draw, kept, new_seed
from ..modes import is_differentiated_again, plain_gradients, without_autocast
from ..private_torch import softmax_gradient
from .math import plain_attention

# Attention weights (all heads) of one chunk: measured, from half to twice as many change little.
_CPU_CHUNK, _ACCELERATOR_CHUNK = 800_000, 1 << 26
_KEYS_MULTIPLE, _FEW_KEYS = 16, 48


def chunked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    post_weight: Tensor,
    post_bias: Tensor,
    scale: float,
    dropout_p: float,
) -> Tensor:
    """O (B, N, h, c) of q, k, v (B, h, N, c)."""
    # Both passes draw a chunk's dropout from this seed, so that no mask is kept.
    seed = new_seed(dropout_p, q.device)
    if halve := q.shape[0] == 1 and q.shape[2] % 2 == 0:
        # Mixing is one product an image, and twice as fast as a batch of products: one image goes as two.
        q = q.unflatten(2, (2, -1)).squeeze(0).transpose(0, 1)
        k, v = k.expand(2, -1, -1, -1), v.expand(2, -1, -1, -1)
    out = _forward(q, k, v, pre_weight, post_weight, post_bias, scale, dropout_p, seed)
    found: Tensor = out.flatten(0, 1).unsqueeze(0) if halve else out
    return found


@torch.library.custom_op("crosshead::talking_heads", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    post_weight: Tensor,
    post_bias: Tensor,
    scale: float,
    dropout_p: float,
    seed: Tensor | None,
) -> Tensor:
    out = empty_token_major(q).transpose(1, 2)
    with without_autocast(q):
        num_keys = k.shape[2]
        if (
            dropout_p == 0
        ):  # the backward pass, which is no faster so, draws no dropout for keys that are none
            k, v = (_with_whole_rows(x) for x in (k, v))
        scratch = _Scratch(q, k, 2)
        dropout = _Dropout(dropout_p, seed)
        for images in scratch.images:
            keys, values = _heads(k[images]), _heads(v[images])
            for rows in scratch.rows:
                queries = q[images, :, rows]
                logits, mixed = scratch.matrices(queries)
                _attend(_heads(queries), keys, pre_weight, scale, logits, mixed, num_keys)
                weights = _mix(post_weight, mixed, out=logits)
                if dropout.p > 0:
                    weights.add_(post_bias[:, None, None]).mul_(dropout.kept(weights))
                heads = torch.bmm(weights.flatten(0, 1), values)
                out[images, rows] = heads.view(queries.shape).transpose(1, 2)
        if dropout.p == 0:
            out += (post_bias.unsqueeze(1) * v.sum(2)).unsqueeze(1)
    return out


@torch.library.custom_op("crosshead::talking_heads_backward", mutates_args=())
def _backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    post_weight: Tensor,
    post_bias: Tensor,
    scale: float,
    dropout_p: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_out = grad_out.transpose(1, 2)
    grad_q, grad_k, grad_v = (empty_token_major(x) for x in (q, k, v))
    sums = torch.promote_types(q.dtype, torch.float32)
    mixing = (pre_weight, post_weight, post_bias)
    grad_mixing = [torch.zeros_like(t, dtype=sums) for t in mixing]
    with without_autocast(q):
        scratch = _Scratch(q, k, 4)
        dropout = _Dropout(dropout_p, seed)
        for images in scratch.images:
            keys, values = _heads(k[images]), _heads(v[images])
            grad_keys, grad_values = (torch.zeros_like(keys, dtype=sums) for _ in range(2))
            for rows in scratch.rows:
                queries, grad_heads = q[images, :, rows], grad_out[images, :, rows]
                operands = _heads(queries), keys, values, _heads(grad_heads)
                found = _chunk_gradients(operands, mixing, scale, scratch.matrices(queries), dropout)
                grad_q[images, :, rows] = found[0].view(queries.shape)
                for total, part in zip((grad_keys, grad_values, *grad_mixing), found[1:], strict=True):
                    total += part
            grad_k[images] = grad_keys.view(k[images].shape)
            grad_v[images] = grad_values.view(v[images].shape)
        if dropout.p == 0:
            summed = grad_out.sum(2)
            grad_v += (post_bias.unsqueeze(1) * summed).unsqueeze(2)
            grad_mixing[2] += (summed * v.sum(2)).sum((0, 2))
    grad_pre, grad_post, grad_bias = (g.to(q.dtype) for g in grad_mixing)
    return grad_q, grad_k, grad_v, grad_pre, grad_post, grad_bias


def _chunk_gradients(
    operands: tuple[Tensor, ...],
    mixing: tuple[Tensor, ...],
    scale: float,
    matrices: list[Tensor],
    dropout: "_Dropout",
) -> tuple[Tensor, ...]:
    """Gradients of queries, keys, values, and of the mixing, from one chunk; of the last bias only under dropout."""
    queries, keys, values, grad_heads = operands
    pre_weight, post_weight, post_bias = mixing
    logits, mixed, first, second = matrices
    _attend(queries, keys, pre_weight, scale, logits, mixed, keys.shape[1])
    weights, kept = _mix(post_weight, mixed, out=first), None
    if dropout.p > 0:
        kept = dropout.kept(weights)
        weights.add_(post_bias[:, None, None]).mul_(kept)
    grad_values = torch.bmm(weights.flatten(0, 1).mT, grad_heads)

    grad_weights, grad_bias = first, torch.zeros_like(post_bias)
    torch.bmm(grad_heads, values.mT, out=grad_weights.flatten(0, 1))
    if kept is not None:
        grad_bias = grad_weights.mul_(kept).sum((0, 2, 3))
    grad_post = _shares(grad_weights, mixed)
    grad_mixed = _mix(post_weight.t(), grad_weights, out=second)
    softmax_gradient(grad_mixed, mixed, out=first)
    grad_pre = _shares(first, logits)
    grad_logits = _mix(pre_weight.t(), first, out=second).flatten(0, 1)
    grad_queries, grad_keys = (
        _scaled_product(grad_logits, keys, scale),
        _scaled_product(grad_logits.mT, queries, scale),
    )
    return grad_queries, grad_keys, grad_values, grad_pre, grad_post, grad_bias


def _attend(
    queries: Tensor,
    keys: Tensor,
    pre_weight: Tensor,
    scale: float,
    logits: Tensor,
    mixed: Tensor,
    num_keys: int,
) -> None:
    """Fills ``logits`` with Q K^T s and ``mixed`` with the softmax of their mixture, both (images, h, rows, keys); what
    lies beyond the first ``num_keys`` is padding, of weight 0."""
    # The scale goes into the product, whose sums are float32: in half precision unscaled logits overflow.
    flat = logits.flatten(0, 1)
    torch.baddbmm(flat, queries, keys.mT, beta=0.0, alpha=scale, out=flat)
    _mix(pre_weight, logits, out=mixed)
    if num_keys < mixed.shape[3]:
        mixed[..., num_keys:] = -torch.inf
    torch.softmax(mixed, dim=-1, out=mixed)


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    return torch.baddbmm(a.new_empty(()), a, b, beta=0.0, alpha=scale)


def _mix(weight: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """The heads of x (images, h, rows, N) mixed: out[:, g] = sum_i weight[g, i] x[:, i]."""
    torch.bmm(weight.expand(x.shape[0], -1, -1), x.flatten(2), out=out.flatten(2))
    return out


def _shares(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient (h, h) of the weight that mixed ``x``, of ``grad`` and x (images, h, rows, N)."""
    return torch.bmm(grad.flatten(2), x.flatten(2).mT).sum(
        0, dtype=torch.promote_types(x.dtype, torch.float32)
    )


def _with_whole_rows(x: Tensor) -> Tensor:
    """Keys or values (B, h, N, c), zeros added where rows of the attention matrices would begin at odd addresses.

    Measured (DECISIONS.md): the products and the softmax of the forward pass take .71 to .88 of their time at
    49, 65 and 197 keys. They gain nothing at 196, nor where a few keys are many more.
    """
    num_keys = x.shape[2]
    if num_keys % 4 == 0 or num_keys < _FEW_KEYS:
        return x
    return F.pad(x, (0, 0, 0, -num_keys % _KEYS_MULTIPLE))


def _heads(x: Tensor) -> Tensor:
    """(images, h, rows, c) as a batch of matrices (images · h, rows, c)."""
    return x.flatten(0, 1)


class _Scratch:
    """Where the chunks are computed: the same few buffers for all of them."""

    def __init__(self, q: Tensor, k: Tensor, count: int) -> None:
        (batch, num_heads, tokens, _), self._keys = q.shape, k.shape[2]
        limit = _CPU_CHUNK if q.device.type == "cpu" else _ACCELERATOR_CHUNK
        row = num_heads * self._keys
        # Two images at least, for the mixing's sake.
        images = min(batch, max(2, limit // max(1, row * tokens)))
        rows = min(tokens, max(1, limit // max(1, images * row)))
        self.images, self.rows = _spans(batch, images), _spans(tokens, rows)
        self._buffers = [q.new_empty(images * rows * row) for _ in range(count)]

    def matrices(self, queries: Tensor) -> list[Tensor]:
        """The buffers as (images, h, rows, N) for ``queries`` (images, h, rows, c)."""
        shape = (*queries.shape[:3], self._keys)
        return [buffer[: shape[0] * shape[1] * shape[2] * shape[3]].view(shape) for buffer in self._buffers]


def _spans(length: int, step: int) -> list[slice]:
    """Slices of ``length`` in equal steps of at most ``step``."""
    count = max(1, -(-length // max(1, step)))
    even = max(1, -(-length // count))
    return [slice(start, min(start + even, length)) for start in range(0, length, even)]


class _Dropout:
    """The same masks in the same order, each time it is made from the same seed."""

    def __init__(self, p: float, seed: Tensor | None) -> None:
        self.p, self._seed, self._numbers = p, seed, count()

    def kept(self, weights: Tensor) -> Tensor:
        """0 for what is dropped, 1 / (1 - p) for what is kept."""
        assert self._seed is not None
        return kept(weights, self.p, Draw(self._seed, next(self._numbers)))


def _whole_mask(q: Tensor, k: Tensor, dropout: _Dropout) -> Tensor:
    """The masks of all chunks, (B, h, N, N), as the chunks of the backward pass draw them."""
    batch, num_heads, tokens, _ = q.shape
    mask = q.new_empty(batch, num_heads, tokens, k.shape[2])
    scratch = _Scratch(q, k, 0)
    for images in scratch.images:
        for rows in scratch.rows:
            part = mask[images, :, rows]
            part.copy_(dropout.kept(torch.empty_like(part, memory_format=torch.contiguous_format)))
    return mask


@_forward.register_fake
def _(q: Tensor, *_: Any) -> Tensor:
    return empty_token_major(q).transpose(1, 2)


@_backward.register_fake
def _(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, pre_weight: Tensor, post_weight: Tensor, *_: Any
) -> Any:
    heads = [empty_token_major(x) for x in (q, k, v)]
    return *heads, torch.empty_like(pre_weight), torch.empty_like(post_weight), q.new_empty(q.shape[1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.scale, ctx.dropout_p, seed = inputs
    ctx.save_for_backward(*tensors, seed)


def _differentiate(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, seed = ctx.saved_tensors
    if not is_differentiated_again():
        return *_backward(grad_out, *tensors, ctx.scale, ctx.dropout_p, seed), None, None, None
    q, k, *_ = tensors
    mask = _whole_mask(q, k, _Dropout(ctx.dropout_p, seed)) if ctx.dropout_p else None
    operands = (*tensors, ctx.scale, lambda weights: weights if mask is None else weights * mask)
    return *plain_gradients(plain_attention, operands, grad_out)[:6], None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.crosshead.talking_heads)
def _(q_shape: torch.Size, k_shape: torch.Size, *_: Any, **__: Any) -> int:
    batch, num_heads, tokens, width = q_shape
    return 4 * batch * num_heads * tokens * k_shape[2] * (width + num_heads)


@register_flop_formula(torch.ops.crosshead.talking_heads_backward)
def _(grad_shape: torch.Size, q_shape: torch.Size, k_shape: torch.Size, *_: Any, **__: Any) -> int:
    batch, num_heads, tokens, width = q_shape
    # Five products over the channels and six mixings, the two that are computed again included.
    return 2 * batch * num_heads * tokens * k_shape[2] * (5 * width + 6 * num_heads)

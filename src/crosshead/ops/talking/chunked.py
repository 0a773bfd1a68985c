"""Talking heads in chunks: the attention matrices of a few images, or of a few rows of them, at a time.

A chunk stays in the cache through all its products, and the backward pass forms it again, so that nothing of size N²
outlives it. The head axis stands right after the image, where mixing is one small matrix product an image:
(h, h) by (h, rows · N). This is an operator of its own to PyTorch's compiler, which would unroll the chunks.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

# Attention weights (all heads) of one chunk: measured, from half to twice as many change little.
_CPU_CHUNK, _ACCELERATOR_CHUNK = 800_000, 1 << 26


def chunked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    post_weight: Tensor,
    post_bias: Tensor,
    dropout_p: float,
) -> Tensor:
    """O (B, N, h, c) of q, k, v (B, h, N, c); ``pre_weight`` holds the scale of the logits."""
    # Both passes draw a chunk's dropout from this seed, so that no mask is kept.
    seed = torch.randint(2**62, (), device="cpu") if dropout_p > 0 else None
    return _forward(q, k, v, pre_weight, post_weight, post_bias, dropout_p, seed)


@torch.library.custom_op("crosshead::talking_heads", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pre_weight: Tensor,
    post_weight: Tensor,
    post_bias: Tensor,
    dropout_p: float,
    seed: Tensor | None,
) -> Tensor:
    out = _empty_heads(q)
    with torch.autocast(q.device.type, enabled=False):
        scratch = _Scratch(q, 2)
        dropout = _Dropout(q.device, dropout_p, seed)
        for images in scratch.images:
            keys, values = _heads(k[images]), _heads(v[images])
            for rows in scratch.rows:
                queries = q[images, :, rows]
                logits, mixed = scratch.matrices(queries)
                _attend(_heads(queries), keys, pre_weight, logits, mixed)
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
    dropout_p: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_out = grad_out.transpose(1, 2)
    grad_q, grad_k, grad_v = (_empty_heads(x).transpose(1, 2) for x in (q, k, v))
    sums = torch.float32 if q.dtype in (torch.bfloat16, torch.float16) else q.dtype
    grad_pre, grad_post = (torch.zeros_like(w, dtype=sums) for w in (pre_weight, post_weight))
    grad_bias = torch.zeros_like(post_bias, dtype=sums)
    with torch.autocast(q.device.type, enabled=False):
        scratch = _Scratch(q, 4)
        dropout = _Dropout(q.device, dropout_p, seed)
        for images in scratch.images:
            keys, values = _heads(k[images]), _heads(v[images])
            grad_keys, grad_values = (torch.zeros_like(keys, dtype=sums) for _ in range(2))
            for rows in scratch.rows:
                queries, grad_heads = _heads(q[images, :, rows]), _heads(grad_out[images, :, rows])
                logits, mixed, first, second = scratch.matrices(q[images, :, rows])
                _attend(queries, keys, pre_weight, logits, mixed)
                weights = _mix(post_weight, mixed, out=first)
                if dropout.p > 0:
                    kept = dropout.kept(weights)
                    weights.add_(post_bias[:, None, None]).mul_(kept)
                grad_values += torch.bmm(weights.flatten(0, 1).mT, grad_heads)

                grad_weights = first
                torch.bmm(grad_heads, values.mT, out=grad_weights.flatten(0, 1))
                if dropout.p > 0:
                    grad_weights.mul_(kept)
                    grad_bias += grad_weights.sum((0, 2, 3), dtype=sums)
                grad_post += _shares(grad_weights, mixed)
                grad_mixed = _mix(post_weight.t(), grad_weights, out=second)
                torch._softmax_backward_data(grad_mixed, mixed, -1, mixed.dtype, grad_input=first)
                grad_pre += _shares(first, logits)
                grad_logits = _mix(pre_weight.t(), first, out=second).flatten(0, 1)
                grad_keys += torch.bmm(grad_logits.mT, queries)
                grad_q[images, :, rows] = torch.bmm(grad_logits, keys).view_as(grad_q[images, :, rows])
            grad_k[images] = grad_keys.view_as(grad_k[images])
            grad_v[images] = grad_values.view_as(grad_v[images])
        if dropout.p == 0:
            summed = grad_out.sum(2)
            grad_v += (post_bias.unsqueeze(1) * summed).unsqueeze(2)
            grad_bias += (summed * v.sum(2)).sum((0, 2))
    grad_pre, grad_post, grad_bias = (g.to(q.dtype) for g in (grad_pre, grad_post, grad_bias))
    return grad_q, grad_k, grad_v, grad_pre, grad_post, grad_bias


def _attend(queries: Tensor, keys: Tensor, pre_weight: Tensor, logits: Tensor, mixed: Tensor) -> None:
    """Fills ``logits`` with Q K^T and ``mixed`` with the softmax of their mixture, both (images, h, rows, N)."""
    torch.bmm(queries, keys.mT, out=logits.flatten(0, 1))
    _mix(pre_weight, logits, out=mixed)
    torch.softmax(mixed, dim=-1, out=mixed)


def _mix(weight: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """The heads of x (images, h, rows, N) mixed: out[:, g] = sum_i weight[g, i] x[:, i]."""
    torch.bmm(weight.expand(len(x), -1, -1), x.flatten(2), out=out.flatten(2))
    return out


def _shares(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient (h, h) of the weight that mixed ``x``, of ``grad`` and x (images, h, rows, N)."""
    return torch.bmm(grad.flatten(2), x.flatten(2).mT).sum(
        0, dtype=torch.promote_types(x.dtype, torch.float32)
    )


def _heads(x: Tensor) -> Tensor:
    """(images, h, rows, c) as a batch of matrices (images · h, rows, c)."""
    return x.flatten(0, 1)


def _empty_heads(x: Tensor) -> Tensor:
    """Room for (B, N, h, c) beside x (B, h, N, c)."""
    batch, num_heads, tokens, width = x.shape
    return x.new_empty(batch, tokens, num_heads, width)


class _Scratch:
    """Where the chunks are computed: the same few buffers for all of them."""

    def __init__(self, q: Tensor, count: int) -> None:
        batch, num_heads, tokens, _ = q.shape
        limit = _CPU_CHUNK if q.device.type == "cpu" else _ACCELERATOR_CHUNK
        # Two images at least: a batch of one small product runs on half the speed.
        images = min(batch, max(2, limit // max(1, num_heads * tokens * tokens)))
        rows = min(tokens, max(1, limit // max(1, images * num_heads * tokens)))
        self.images, self.rows = _spans(batch, images), _spans(tokens, rows)
        self._keys = tokens
        self._buffers = [q.new_empty(images * num_heads * rows * tokens) for _ in range(count)]

    def matrices(self, queries: Tensor) -> list[Tensor]:
        """The buffers as (images, h, rows, N) for ``queries`` (images, h, rows, c)."""
        shape = (*queries.shape[:3], self._keys)
        return [buffer[: shape[0] * shape[1] * shape[2] * shape[3]].view(shape) for buffer in self._buffers]


def _spans(length: int, step: int) -> list[slice]:
    """Slices of ``length`` in equal steps of at most ``step``."""
    count = -(-length // max(1, step))
    even = -(-length // max(1, count))
    return [slice(start, min(start + even, length)) for start in range(0, length, even)]


class _Dropout:
    """The same masks in the same order, each time it is made from the same seed."""

    def __init__(self, device: torch.device, p: float, seed: Tensor | None) -> None:
        self.p = p
        if seed is not None:
            self._generator = torch.Generator(device).manual_seed(int(seed))

    def kept(self, weights: Tensor) -> Tensor:
        """0 for what is dropped, 1 / (1 - p) for what is kept."""
        return torch.empty_like(weights).bernoulli_(1 - self.p, generator=self._generator).div_(1 - self.p)


@_forward.register_fake
def _(q: Tensor, *_: Any) -> Tensor:
    return _empty_heads(q)


@_backward.register_fake
def _(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, pre_weight: Tensor, post_weight: Tensor, *_: Any
) -> Any:
    heads = [_empty_heads(x).transpose(1, 2) for x in (q, k, v)]
    return *heads, torch.empty_like(pre_weight), torch.empty_like(post_weight), q.new_empty(q.shape[1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.dropout_p, seed = inputs
    ctx.save_for_backward(*tensors, seed)


def _differentiate(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, seed = ctx.saved_tensors
    return *_backward(grad_out, *tensors, ctx.dropout_p, seed), None, None


_forward.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.crosshead.talking_heads)
def _(q_shape: torch.Size, *_: Any, **__: Any) -> int:
    batch, num_heads, tokens, width = q_shape
    return 4 * batch * num_heads * tokens * tokens * (width + num_heads)


@register_flop_formula(torch.ops.crosshead.talking_heads_backward)
def _(grad_shape: torch.Size, *_: Any, **__: Any) -> int:
    batch, tokens, num_heads, width = grad_shape
    # Five products over the channels and six mixings, the two that are computed again included.
    return 2 * batch * num_heads * tokens * tokens * (5 * width + 6 * num_heads)

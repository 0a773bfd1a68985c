"""Overlapped heads in windows as explicit matrix products, on a CPU.

PyTorch's fused attention has no fast path for a bias that learns. In the many small products of windows the copies
weigh as much as the arithmetic, so some windows at a time go through all products while they are in the cache:
overlapped heads are written window by window, where neighbours lie side by side, and their gradients are added there.
"""

from typing import Any

import torch
from torch import Tensor

from ..modes import is_differentiated_again, plain_gradients
from ..private_torch import softmax_gradient
from .views import plain_window_attention

# Attention weights (all heads) of the windows that are computed together; from half to twice as many change little.
_CHUNK_ELEMENTS = 400_000
# Overlapped heads (all three) are kept for the backward pass up to this many elements, 8 MB of float32, which the cache
# may still hold then; more of them are sooner written again than fetched from memory.
_KEPT_ELEMENTS = 1 << 21


class WindowProducts(torch.autograd.Function):
    """(qkv, bias (windows or 1, h, N, N), factors (h, 1, c) or None, closed rows (windows or 1, h, N, 1) or None,
    overlap, scale, keep) -> (B, N, h·c).

    Kept for the backward pass: qkv and the attention weights, as timm's module keeps them, and the overlapped heads
    where they are few. Of half-precision qkv the logits are formed in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        bias: Tensor,
        factors: Tensor | None,
        closed: Tensor | None,
        overlap: int,
        scale: float,
        keep: bool,
    ) -> Tensor:
        batch, tokens, _, num_heads, head_dim = qkv.shape
        precise = torch.promote_types(qkv.dtype, torch.float32)
        chunks = _chunks(batch, bias)
        few = keep and 3 * batch * tokens * num_heads * (head_dim + 2 * overlap) <= _KEPT_ELEMENTS
        heads = _Heads(qkv, overlap, chunks, whole=few)
        weights = qkv.new_empty(batch if keep else heads.room, num_heads, tokens, tokens)
        scores = (
            weights
            if precise == qkv.dtype
            else weights.new_empty((heads.room, *weights.shape[1:]), dtype=precise)
        )
        out = qkv.new_empty(batch, tokens, num_heads, heads.width)
        for windows, biases in chunks:
            slot = windows if keep else slice(0, windows.stop - windows.start)
            q, k, v = heads.of(qkv, windows)
            a = weights[slot].flatten(0, 1)
            logits = a if scores is weights else scores[: weights[slot].shape[0]].flatten(0, 1)
            torch.baddbmm(
                logits, _scaled(q, factors).to(precise), k.to(precise).mT, beta=0.0, alpha=scale, out=logits
            )
            by_image = logits.view(-1, *bias[biases].shape)
            by_image += bias[biases]
            torch.softmax(logits, dim=-1, out=logits)
            if closed is not None:
                by_image.masked_fill_(closed[biases], 0.0)
            if scores is not weights:
                a.copy_(logits)
            out[windows] = torch.bmm(a, v).unflatten(0, (-1, num_heads)).transpose(1, 2)
        if keep:
            ctx.save_for_backward(qkv, weights, bias, factors, heads.all if few else None)
        ctx.overlap, ctx.scale = overlap, scale
        return out.flatten(2)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        qkv, weights, bias, factors, kept = ctx.saved_tensors
        if is_differentiated_again():
            operands = (qkv, bias, factors, ctx.overlap, ctx.scale)
            found = plain_gradients(plain_window_attention, operands, grad_out)
            return *found[:3], None, None, None, None
        chunks = _chunks(qkv.shape[0], bias)
        heads, grads = _Heads(qkv, ctx.overlap, chunks), _Heads(qkv, ctx.overlap, chunks)
        grad_out = grad_out.unflatten(2, (-1, heads.width))
        grad_qkv, grad_bias = torch.empty_like(qkv), torch.zeros_like(bias)
        grad_factors = None if factors is None else torch.zeros_like(factors)
        for windows, biases in chunks:
            q, k, v = heads.of(qkv, windows) if kept is None else _three(kept[:, windows])
            grad_q, grad_k, grad_v = grads.room_for(windows)
            a = weights[windows].flatten(0, 1)
            grad_heads = grad_out[windows].transpose(1, 2).flatten(0, 1)
            torch.bmm(a.mT, grad_heads, out=grad_v)
            grad_a = torch.bmm(grad_heads, v.mT)
            softmax_gradient(grad_a, a, out=grad_a)
            grad_bias[biases] += grad_a.view(-1, *bias[biases].shape).sum(0, dtype=bias.dtype)
            torch.baddbmm(grad_q, grad_a, k, beta=0.0, alpha=ctx.scale, out=grad_q)
            torch.baddbmm(grad_k, grad_a.mT, _scaled(q, factors), beta=0.0, alpha=ctx.scale, out=grad_k)
            if factors is not None and grad_factors is not None:
                grad_factors += (grad_q * q).unflatten(0, (-1, factors.shape[0])).sum((0, 2)).unsqueeze(1)
                grad_q.unflatten(0, (-1, factors.shape[0])).mul_(factors)
            grads.add_to(grad_qkv, windows)
        return grad_qkv, grad_bias, grad_factors, None, None, None, None


def _chunks(batch: int, bias: Tensor) -> list[tuple[slice, slice]]:
    """The windows that go together, and which of an image's biases are theirs: whole images, or parts of one."""
    per_image, num_heads, tokens, _ = bias.shape
    windows = max(1, _CHUNK_ELEMENTS // (num_heads * tokens * tokens))
    if windows >= per_image:
        step = windows - windows % per_image
        return [(slice(i, min(i + step, batch)), slice(0, per_image)) for i in range(0, batch, step)]
    even = -(-per_image // -(-per_image // windows))
    parts = [(i, min(i + even, per_image)) for i in range(0, per_image, even)]
    return [
        (slice(image + i, image + j), slice(i, j)) for image in range(0, batch, per_image) for i, j in parts
    ]


def _scaled(q: Tensor, factors: Tensor | None) -> Tensor:
    """The queries (windows · h, N, c), their borrowed channels multiplied."""
    return q if factors is None else (q.unflatten(0, (-1, factors.shape[0])) * factors).flatten(0, 1)


class _Heads:
    """Room for the overlapped heads of one chunk of windows, or of the whole batch: (3, windows, h, N, c)."""

    def __init__(
        self, qkv: Tensor, overlap: int, chunks: list[tuple[slice, slice]], whole: bool = False
    ) -> None:
        batch, tokens, _, num_heads, self._head_dim = qkv.shape
        self.room = max((windows.stop - windows.start for windows, _ in chunks), default=0)
        self.width, self._overlap, self._whole = self._head_dim + 2 * overlap, overlap, whole
        self.all = qkv.new_empty(3, batch if whole else self.room, num_heads, tokens, self.width)

    def of(self, qkv: Tensor, windows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Q', K', V', each (windows · h, N, c), of some windows of qkv (B, N, 3, h, d)."""
        heads = self._place(windows)
        o, d = self._overlap, self._head_dim
        heads[..., o : o + d] = qkv[windows].permute(2, 0, 3, 1, 4)
        if o:
            heads[:, :, 1:, :, :o] = heads[:, :, :-1, :, d : o + d]
            heads[:, :, :-1, :, o + d :] = heads[:, :, 1:, :, o : 2 * o]
            heads[:, :, 0, :, :o] = 0.0
            heads[:, :, -1, :, o + d :] = 0.0
        return _three(heads)

    def room_for(self, windows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Room for their gradients, each (windows · h, N, c)."""
        return _three(self._place(windows))

    def add_to(self, qkv: Tensor, windows: slice) -> None:
        """Fills those windows of ``qkv`` (B, N, 3, h, d) with the sum, over the heads that read a channel, of theirs.

        The overlap-add of ``views.py``, in the room itself, which it spoils: one copy less.
        """
        heads, o, d = self._place(windows), self._overlap, self._head_dim
        if o:
            heads[:, :, :-1, :, d : o + d] += heads[:, :, 1:, :, :o]
            heads[:, :, 1:, :, o : 2 * o] += heads[:, :, :-1, :, o + d :]
        qkv[windows].permute(2, 0, 3, 1, 4).copy_(heads[..., o : o + d])

    def _place(self, windows: slice) -> Tensor:
        return self.all[:, windows] if self._whole else self.all[:, : windows.stop - windows.start]


def _three(heads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = heads.flatten(1, 2).unbind(0)
    return q, k, v

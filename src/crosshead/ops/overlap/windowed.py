"""Overlapped heads in windows of an image, as Swin has them: a learned position bias, and a mask between windows.

PyTorch's fused attention has no fast path for a bias that learns. In the many small products of windows the copies
weigh as much as the arithmetic, so on a CPU each is made once: overlapped heads are written window by window, where
neighbours lie side by side, and their gradients are added there too. Some windows at a time go through all products
while they are in the cache.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..autocast import autocast_dtype
from ..checks import check_dropout, check_overlap, check_packed
from .naive import spread_gain
from .windows import overlapped_heads

# Attention weights (all heads) of the windows that are computed together; from half to twice as many change little.
_CHUNK_ELEMENTS = 400_000


def overlapped_window_attention(
    qkv: Tensor,
    overlap: int,
    bias: Tensor,
    *,
    mask: Tensor | None = None,
    dropout_p: float = 0.0,
    scale: float | None = None,
    borrow_gain: Tensor | None = None,
) -> Tensor:
    """Overlapped heads (arXiv 2410.14874) inside windows (Swin, arXiv 2103.14030).

    Args:
        qkv: packed queries, keys and values (images · windows, N, 3, h, d), the windows of an image together.
        overlap: borrowed channels a side, 0 to d.
        bias: relative position bias (h, N, N), added to the logits.
        mask: (windows, N, N), added to the logits too, or None. It gets no gradient.
        dropout_p: the share of attention weights that is dropped. Give 0 in evaluation.
        scale: factor of the logits; d^(-1/2) by default, the width before overlapping.
        borrow_gain: factors (h, 2·overlap) of the borrowed channels of the queries, as in ``overlapped_attention``.

    Returns:
        The heads side by side (images · windows, N, h·(d + 2·overlap)), ready for the projection.

    Raises:
        ValueError: for sizes that do not fit.
    """
    batch, tokens, num_heads, head_dim = check_packed(qkv)
    check_overlap(overlap, head_dim)
    check_dropout(dropout_p)
    qkv = qkv.to(autocast_dtype(qkv) or qkv.dtype)
    bias = window_bias(bias, mask, (batch, num_heads, tokens)).to(qkv.dtype)
    scale = head_dim**-0.5 if scale is None else scale
    factors = None
    if borrow_gain is not None:
        factors = spread_gain(borrow_gain, num_heads, head_dim, overlap).to(qkv.dtype)
    if qkv.device.type == "cpu" and dropout_p == 0 and not torch.compiler.is_compiling():
        keep = torch.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in (qkv, bias, factors)
        )
        return _WindowProducts.apply(qkv, bias, factors, overlap, scale, keep)

    q, k, v = overlapped_heads(qkv, overlap)
    if factors is not None:
        q = q * factors
    bias = bias.expand(batch // len(bias), -1, -1, -1, -1).flatten(0, 1) if len(bias) > 1 else bias
    heads = F.scaled_dot_product_attention(q, k, v, bias, dropout_p, scale=scale)
    return heads.transpose(1, 2).flatten(2)


def window_bias(bias: Tensor, mask: Tensor | None, sizes: tuple[int, int, int]) -> Tensor:
    """What is added to the logits of each window of an image: (windows or 1, h, N, N)."""
    batch, num_heads, tokens = sizes
    if bias.shape != (num_heads, tokens, tokens):
        raise ValueError(
            f"bias must be (num_heads, N, N) = ({num_heads}, {tokens}, {tokens}), got {tuple(bias.shape)}; "
            "the layer's window size must be that of the windows that it is given"
        )
    if mask is None:
        return bias.unsqueeze(0)
    if mask.dim() != 3 or mask.shape[1:] != (tokens, tokens) or batch % len(mask):
        raise ValueError(
            f"mask must be (windows, N, N) = (windows, {tokens}, {tokens}), with a number of windows that divides "
            f"the batch of {batch}, got {tuple(mask.shape)}"
        )
    return bias + mask.detach().to(bias.dtype).unsqueeze(1)


class _WindowProducts(torch.autograd.Function):
    """(qkv, bias (windows or 1, h, N, N), factors (h, 1, c) or None, overlap, scale, keep) -> (B, N, h·c).

    Kept for the backward pass: the overlapped heads and the attention weights, as timm's module keeps them.
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, bias: Tensor, factors: Tensor | None, overlap: int, scale: float, keep: bool
    ) -> Tensor:
        batch, tokens, _, num_heads, head_dim = qkv.shape
        width = head_dim + 2 * overlap
        chunks = _chunks(batch, bias)
        room = batch if keep or not chunks else chunks[0][0].stop
        heads = qkv.new_empty(3, room, num_heads, tokens, width)
        weights = qkv.new_empty(room, num_heads, tokens, tokens)
        out = qkv.new_empty(batch, tokens, num_heads, width)
        for windows, biases in chunks:
            slot = windows if keep else slice(0, windows.stop - windows.start)
            _overlap(qkv[windows], heads[:, slot])
            q, k, v = heads[:, slot].flatten(1, 2).unbind(0)
            logits = weights[slot].flatten(0, 1)
            torch.baddbmm(logits, _scaled(q, factors), k.mT, beta=0.0, alpha=scale, out=logits)
            weights[slot].unflatten(0, (-1, len(bias[biases]))).add_(bias[biases])
            torch.softmax(logits, dim=-1, out=logits)
            out[windows] = torch.bmm(logits, v).unflatten(0, (-1, num_heads)).transpose(1, 2)
        if keep:
            ctx.save_for_backward(heads, weights, bias, factors)
        ctx.overlap, ctx.scale = overlap, scale
        return out.flatten(2)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        heads, weights, bias, factors = ctx.saved_tensors
        _, batch, num_heads, tokens, width = heads.shape
        grad_out = grad_out.unflatten(2, (num_heads, width))
        grad_qkv = heads.new_empty(batch, tokens, 3, num_heads, width - 2 * ctx.overlap)
        grad_bias = torch.zeros_like(bias)
        grad_factors = None if factors is None else torch.zeros_like(factors)
        for windows, biases in _chunks(batch, bias):
            q, k, v = heads[:, windows].flatten(1, 2).unbind(0)
            a = weights[windows].flatten(0, 1)
            grad_heads = grad_out[windows].transpose(1, 2).flatten(0, 1)
            grads = torch.empty_like(heads[:, windows])
            grad_q, grad_k, grad_v = grads.flatten(1, 2).unbind(0)
            torch.bmm(a.mT, grad_heads, out=grad_v)
            grad_a = torch.bmm(grad_heads, v.mT)
            torch._softmax_backward_data(grad_a, a, -1, a.dtype, grad_input=grad_a)
            grad_bias[biases] += grad_a.view(-1, *bias[biases].shape).sum(0)
            torch.baddbmm(grad_q, grad_a, k, beta=0.0, alpha=ctx.scale, out=grad_q)
            torch.baddbmm(grad_k, grad_a.mT, _scaled(q, factors), beta=0.0, alpha=ctx.scale, out=grad_k)
            if factors is not None:
                grad_factors += (grads[0] * heads[0, windows]).sum((0, 2)).unsqueeze(1)
                grads[0].mul_(factors)
            _overlap_add(grads, grad_qkv[windows])
        return grad_qkv, grad_bias, grad_factors, None, None, None


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
    return q if factors is None else (q.unflatten(0, (-1, len(factors))) * factors).flatten(0, 1)


def _overlap(qkv: Tensor, heads: Tensor) -> None:
    """Fills ``heads`` (3, windows, h, N, d + 2·overlap) from qkv (windows, N, 3, h, d)."""
    head_dim = qkv.shape[-1]
    overlap = (heads.shape[-1] - head_dim) // 2
    end = overlap + head_dim
    heads[..., overlap:end] = qkv.permute(2, 0, 3, 1, 4)
    if overlap:
        heads[:, :, 1:, :, :overlap] = heads[:, :, :-1, :, head_dim:end]
        heads[:, :, :-1, :, end:] = heads[:, :, 1:, :, overlap : 2 * overlap]
        heads[:, :, 0, :, :overlap] = 0.0
        heads[:, :, -1, :, end:] = 0.0


def _overlap_add(heads: Tensor, qkv: Tensor) -> None:
    """Fills ``qkv`` with the sum over its readers in ``heads``, shapes as in ``_overlap``; spoils ``heads``."""
    head_dim = qkv.shape[-1]
    overlap = (heads.shape[-1] - head_dim) // 2
    end = overlap + head_dim
    if overlap:
        heads[:, :, :-1, :, head_dim:end] += heads[:, :, 1:, :, :overlap]
        heads[:, :, 1:, :, overlap : 2 * overlap] += heads[:, :, :-1, :, end:]
    qkv.permute(2, 0, 3, 1, 4).copy_(heads[..., overlap:end])

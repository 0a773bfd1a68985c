"""Overlapped-head attention as explicit matrix products, a few images at a time: the bfloat16 path on a CPU.

There, the backward pass of ``scaled_dot_product_attention`` is slower in bfloat16 than in float32, while plain batched
products are twice as fast. A chunk's attention matrix stays in the cache and is computed again in the backward pass,
so that memory stays linear in N.

Logits are formed in float32: rounded to bfloat16, a logit of 8 is off by 0.03, and so its weight by 3%. Weights are
rounded, as in PyTorch's fused attention. (The root mean square of the output's error, of normal q, k and v at N 197, is
2.3e-3, the fused attention's 1.8e-3; with rounded logits it was 8.5e-3, in 0.7 to 0.8 of the time.)
"""

from typing import Any

import torch
from torch import Tensor

from ..modes import is_differentiated_again, plain_gradients
from ..private_torch import softmax_gradient
from .views import overlap_add_, padded_windows, plain_attention

# Attention weights of one chunk: one megabyte of bfloat16. From half to twice as many change little.
_CHUNK_ELEMENTS = 1 << 19


class ProductsAttention(torch.autograd.Function):
    """(qkv (B, N, 3, h, d), overlap, scale) -> (B, N, h·(d + 2·overlap))."""

    @staticmethod
    def forward(qkv: Tensor, overlap: int, scale: float) -> Tensor:
        batch, tokens, _, num_heads, head_dim = qkv.shape
        out = qkv.new_empty(batch, tokens, num_heads, head_dim + 2 * overlap)
        for images in _chunks(qkv):
            q, k, v = _packed_windows(qkv[images], overlap)
            heads = torch.bmm(_weights(q, k, scale), v)
            out[images] = heads.unflatten(0, (-1, num_heads)).transpose(1, 2)
        return out.flatten(2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, float], output: Tensor) -> None:
        qkv, ctx.overlap, ctx.scale = inputs
        ctx.save_for_backward(qkv)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, None, None]:
        (qkv,) = ctx.saved_tensors
        if is_differentiated_again():
            grads = plain_gradients(plain_attention, (qkv, ctx.overlap, ctx.scale), grad_out)
            return grads[0], None, None
        num_heads = qkv.shape[3]
        grad_out = grad_out.unflatten(2, (num_heads, -1))
        grad_qkv = torch.empty_like(qkv)
        for images in _chunks(qkv):
            q, k, v = _packed_windows(qkv[images], ctx.overlap)
            weights = _weights(q, k, ctx.scale)
            grad_heads = grad_out[images].transpose(1, 2).flatten(0, 1)
            grad_weights = torch.bmm(grad_heads, v.transpose(1, 2))
            grad_logits = softmax_gradient(grad_weights, weights)
            grads = (
                torch.bmm(grad_logits, k).mul_(ctx.scale),
                torch.bmm(grad_logits.transpose(1, 2), q).mul_(ctx.scale),
                torch.bmm(weights.transpose(1, 2), grad_heads),
            )
            for grad, heads in zip(grads, grad_qkv[images].unbind(2), strict=True):
                overlap_add_(heads, grad.unflatten(0, (-1, num_heads)).transpose(1, 2), ctx.overlap)
        return grad_qkv, None, None


def _chunks(qkv: Tensor) -> list[slice]:
    batch, tokens, _, num_heads, _ = qkv.shape
    step = max(1, _CHUNK_ELEMENTS // max(1, num_heads * tokens * tokens))
    return [slice(start, start + step) for start in range(0, batch, step)]


def _packed_windows(qkv: Tensor, overlap: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q', K', V' of some images, each contiguous (b·h, N, d + 2·overlap) for the batched products."""
    q, k, v = padded_windows(qkv, overlap).flatten(1, 2).unbind(0)
    return q, k, v


def _weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """softmax(Q' K'ᵀ s), (b·h, N, N), rounded to the dtype of q at its end."""
    precise_q, precise_k = q.float(), k.float()
    logits = torch.baddbmm(
        precise_q.new_empty(()), precise_q, precise_k.transpose(1, 2), beta=0.0, alpha=scale
    )
    return torch.softmax(logits, dim=-1, out=logits).to(q.dtype)

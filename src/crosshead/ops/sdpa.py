"""PyTorch's attention, fused and plain, as the operators call it.

No fused kernel of PyTorch's has a second derivative, and the CPU's has no forward derivative either. The plain one has
both, at the price of the (N, N) matrices.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .modes import is_differentiated_again, plain_gradients


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float,
) -> Tensor:
    """``scaled_dot_product_attention`` of q, k, v (B, h, N, c), whose backward pass can be differentiated again.

    Not under dropout: what PyTorch's kernel dropped cannot be dropped again.
    """
    out = F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)
    if dropout_p > 0.0 or torch.compiler.is_compiling() or not out.requires_grad:
        return out
    found: Tensor = _DifferentiableAgain.apply(
        out, q, k, v, attn_mask, partial(plain_attention, is_causal=is_causal, scale=scale)
    )
    return found


def plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float,
) -> Tensor:
    """The same by PyTorch's one kernel that follows everything (``modes.py``)."""
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)


class _DifferentiableAgain(torch.autograd.Function):
    """(out, q, k, v, attn_mask, plain) -> out. Its gradient goes to ``out``, whose kernel knows what to do with it.

    Where that gradient will be differentiated, it goes past the kernel: straight to q, k and v, from the plain form.
    """

    @staticmethod
    def forward(
        ctx: Any, out: Tensor, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, plain: Any
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, attn_mask)
        ctx.plain = plain
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        if not is_differentiated_again():
            return grad_out, None, None, None, None, None
        return None, *plain_gradients(ctx.plain, ctx.saved_tensors, grad_out), None

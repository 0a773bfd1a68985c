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
    attn_mask = None if attn_mask is None else torch.atleast_2d(attn_mask)  # PyTorch takes no fewer axes
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
    attn_mask = None if attn_mask is None else torch.atleast_2d(attn_mask)
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)


def joined_mask(
    attn_bias: Tensor | None, attn_mask: Tensor | None, is_causal: bool, tokens: int
) -> Tensor | None:
    """Bias and mask as one mask, with the causal part, of as many tokens, where there is a bias."""
    if attn_bias is None:
        return attn_mask
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask and is_causal exclude each other; put the causal part into attn_mask")
    if is_causal:
        attn_mask = torch.ones(tokens, tokens, dtype=torch.bool, device=attn_bias.device).tril()
    if attn_mask is None:
        return attn_bias
    if attn_mask.dtype != torch.bool:
        return attn_bias + attn_mask
    bias, mask = torch.broadcast_tensors(attn_bias, attn_mask)
    out: Tensor = bias.masked_fill(~mask, -torch.inf)
    return out


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

"""PyTorch's attention, fused and plain, as the operators call it.

On a GPU its kernels read 16 bytes at once, take no more than 65,535 images, and one of them has never been seen to read
overlapping views: what is handed to it is laid out, cut and asked for accordingly.

No fused kernel of PyTorch's has a second derivative, and the CPU's has no forward derivative either. The plain one has
both, at the price of the (N, N) matrices.
"""

import contextlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .modes import is_differentiated_again, plain_gradients
from .paths import BYTES_AT_ONCE, HALF, MAX_IMAGES

_WITHOUT_CUDNN = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


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
    attend = partial(_attend, dropout_p=dropout_p, is_causal=is_causal, scale=scale)
    if q.device.type == "cuda":
        q, k, v = (aligned(x) for x in (q, k, v))
        out = _in_parts(attend, q, k, v, attn_mask)
    else:
        out = attend(q, k, v, attn_mask)
    if dropout_p > 0.0 or torch.compiler.is_compiling() or not out.requires_grad:
        return out
    found: Tensor = _DifferentiableAgain.apply(
        out, q, k, v, attn_mask, partial(plain_attention, is_causal=is_causal, scale=scale)
    )
    return found


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None,
    *,
    dropout_p: float,
    is_causal: bool,
    scale: float,
) -> Tensor:
    with _kernels_for(k):
        return F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)


def aligned(x: Tensor) -> Tensor:
    """``x`` (B, h, N, c), copied where a GPU's kernel would read its rows misaligned.

    Where the width is none that it reads at once PyTorch makes a copy itself, but where it is one (d 20, o 2) it does
    not ask whether the heads lie that far apart.
    """
    size = x.element_size()
    if x.shape[-1] * size % BYTES_AT_ONCE:
        return x
    steps = (*x.stride()[:-1], x.storage_offset())
    return (
        x if x.stride(-1) == 1 and all(step * size % BYTES_AT_ONCE == 0 for step in steps) else x.contiguous()
    )


def _in_parts(
    attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None
) -> Tensor:
    """``attend`` of as many images at a time as a GPU takes; windows of large pictures are more."""
    if q.shape[0] <= MAX_IMAGES:
        return attend(q, k, v, attn_mask)
    parts = [x.split(MAX_IMAGES) for x in (q, k, v)]
    if attn_mask is not None and attn_mask.dim() == 4 and attn_mask.shape[0] > 1:
        masks: Any = attn_mask.split(MAX_IMAGES)
    else:
        masks = [attn_mask] * len(parts[0])
    return torch.cat([attend(*part) for part in zip(*parts, masks, strict=True)])


def _kernels_for(k: Tensor) -> contextlib.AbstractContextManager[None]:
    """PyTorch's own choice, but for cuDNN on views that overlap where it does not read those rightly."""
    overlaps = k.stride(1) < k.shape[-1] and k.shape[1] > 1
    if k.device.type != "cuda" or k.dtype not in HALF or not overlaps:
        return contextlib.nullcontext()
    # Compiled code can't look, and does without.
    if not torch.compiler.is_compiling() and cudnn_reads_overlapping_views(k.device):
        return contextlib.nullcontext()
    return sdpa_kernel(_WITHOUT_CUDNN)


@cache
def cudnn_reads_overlapping_views(device: torch.device) -> bool:
    """Whether cuDNN's attention and its gradients of overlapping views are those of copies; asked once for a device."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 2, 65, 16 * 5, generator=generator).to(device, torch.bfloat16)
    views = rows.unfold(-1, 32, 16).transpose(2, 3)  # 4 heads of 32 channels, 16 apart
    try:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            got, want = (_output_and_gradients(*x.unbind(0)) for x in (views, views.contiguous()))
    except RuntimeError:  # it serves no such call here, and so spoils none
        return True
    return all(
        bool(torch.isfinite(g).all()) and torch.allclose(g, w, atol=0.05)
        for g, w in zip(got, want, strict=True)
    )


def _output_and_gradients(*operands: Tensor) -> list[Tensor]:
    with torch.enable_grad():
        q, k, v = (x.detach().requires_grad_() for x in operands)
        out = F.scaled_dot_product_attention(q, k, v)
        return [out.detach(), *torch.autograd.grad(out, (q, k, v), torch.ones_like(out))]


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

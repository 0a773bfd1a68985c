"""Products whose result is float32: of half-precision matrices as they are, where the device has such a product.

What lives on small differences of logits or weights needs float32 results, and no float32 operands: products of two
half-precision numbers are exact in it. A GPU sums them so in its matrix units, at a multiple of the speed of float32
products; a CPU's PyTorch knows no such product, and converts its operands. Float32 products themselves are in TF32
where PyTorch's own switch says so (``torch.set_float32_matmul_precision``).
"""

from math import frexp
from typing import Any

import torch
from torch import Tensor

from .modes import is_transformed
from .paths import HALF


def precise_product(a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
    """a (..., m, k) times b (..., k, n) times ``scale``, in float32 or better.

    On a GPU ``a`` is rounded to b's half precision.
    """
    if b.dtype in HALF and sums_half_in_float32(b.device) and not is_transformed(a, b):
        before = (
            frexp(scale)[0] == 0.5
        )  # a power of two rounds nothing, and the operand is smaller than the product
        product: Tensor = _HalfProduct.apply(_times(a, scale if before else 1.0).to(b.dtype), b)
        return _times(product, 1.0 if before else scale)
    return _times(precise(a), scale) @ precise(b)


def _times(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1.0 else x * scale


def sums_half_in_float32(device: torch.device) -> bool:
    """Whether PyTorch has a product of half-precision matrices with a float32 result there."""
    return device.type == "cuda"


def precise(x: Tensor) -> Tensor:
    """In float32 or better."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _HalfProduct(torch.autograd.Function):
    """PyTorch has the product, and no derivative of it. The gradients are plain products, of half precision too."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        out = _summed_in_float32(a.flatten(0, -3), b.flatten(0, -3))
        return out.view(*a.shape[:-1], b.shape[-1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        grad = grad.to(b.dtype)
        return grad @ b.mT, a.mT @ grad


def _summed_in_float32(a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a, b, out_dtype=torch.float32)

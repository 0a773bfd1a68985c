"""What PyTorch may do with an operator beside calling it and differentiating it once.

The transforms of ``torch.func``, forward-mode differentiation, and a backward pass that is differentiated again: a fast
path with a backward of its own follows none of them. An operator's plain form, made of nothing but PyTorch's own
differentiable functions, follows all; its price is memory that grows with N².
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual


def is_transformed(*operands: Tensor | None) -> bool:
    """Whether ``torch.func`` or forward-mode differentiation is at work. Compiled code traces through both itself."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return True
    return any(x is not None and unpack_dual(x).tangent is not None for x in operands)


def is_differentiated_again() -> bool:
    """In a backward pass: whether its result must be differentiable too (``create_graph=True``)."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def plain_gradients(
    plain: Callable[..., Tensor], operands: tuple[Any, ...], grad_out: Tensor
) -> tuple[Tensor | None, ...]:
    """For a backward pass that is differentiated again: the gradients of ``plain(*operands)``, one an operand.

    None for what is no tensor or needs no gradient.
    """
    # Of views, so that no operand is an ancestor of another one: each gradient is that of its own place.
    views = [x.view_as(x) if isinstance(x, Tensor) else x for x in operands]
    wanted = [x for x in views if isinstance(x, Tensor) and x.requires_grad]
    found = iter(torch.autograd.grad(plain(*views), wanted, grad_out, create_graph=True, allow_unused=True))
    return tuple(next(found) if isinstance(x, Tensor) and x.requires_grad else None for x in views)

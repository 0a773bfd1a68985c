"""What PyTorch may be doing around an operator: a symbolic trace, autocast, and more than calling it and
differentiating it once.

Checks and the choice of a path ask for sizes, which a trace of ``torch.fx`` does not know: operators and layers are one
node of its graph each (``traceable``), and do their work when the graph runs. Autocast is asked for as every operator
does, also on devices that have none, such as ``meta``. The transforms of ``torch.func``, forward-mode differentiation,
and a backward pass that is differentiated again: a fast path with a backward of its own follows none of them. An
operator's plain form, made of nothing but PyTorch's own differentiable functions, follows all; its price is memory that
grows with N².
"""

import contextlib
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.fx import Proxy

from .private_torch import transforms_are_active


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast computes ``x`` in; None where it is off, there is none, or x is float64, which it leaves alone."""
    device = x.device.type
    if x.dtype == torch.float64 or not _has_autocast(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def autocast_to(x: Tensor) -> Tensor:
    """``x`` as autocast hands it to a product; ``x`` itself where it changes nothing."""
    return x.to(autocast_dtype(x) or x.dtype)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Autocast off on the device of ``x``."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if _has_autocast(device) else contextlib.nullcontext()


def _has_autocast(device: str) -> bool:
    # PyTorch 2.11 cannot compile the second question, whose answer is yes wherever it compiles for.
    return torch.compiler.is_compiling() or torch.amp.is_autocast_available(device)


def is_transformed(*operands: Tensor | None) -> bool:
    """Whether ``torch.func`` or forward-mode differentiation is at work. Compiled code traces through both itself."""
    if torch.compiler.is_compiling():
        return False
    if transforms_are_active():
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


P = ParamSpec("P")
R = TypeVar("R")


def traceable(operator: Callable[P, R]) -> Callable[P, R]:
    """A function as one node, wherever it is called from (``torch.fx.wrap`` is for one calling module at a time)."""

    @wraps(operator)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        tracer = _tracer(*args, *kwargs.values())
        if tracer is not None:
            out: R = tracer.create_proxy("call_function", called, args, kwargs)
            return out
        return operator(*args, **kwargs)

    return called


def traceable_module(forward: Callable[P, R]) -> Callable[P, R]:
    """The ``forward`` of a module that is one node to every tracer, as PyTorch's own modules are."""

    @wraps(forward)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        tracer = _tracer(*args, *kwargs.values())
        if tracer is not None:
            module, *rest = args
            out: R = tracer.create_proxy("call_module", tracer.path_of_module(module), tuple(rest), kwargs)
            return out
        return forward(*args, **kwargs)

    return called


def _tracer(*given: Any) -> Any:
    """The tracer of a symbolic trace that is going on, or None."""
    if torch.compiler.is_compiling():
        return None
    return next((x.tracer for x in given if isinstance(x, Proxy)), None)

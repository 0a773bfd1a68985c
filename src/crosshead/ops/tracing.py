"""Operators and layers in the graphs of ``torch.fx``.

Their checks and their choice of a path ask for sizes, which a symbolic trace does not know. So each is one node of the
graph, and does its work when the graph runs.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch.fx import Proxy

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

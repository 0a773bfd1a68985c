"""Operators in the graphs of ``torch.fx``."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch.fx import Proxy

P = ParamSpec("P")
R = TypeVar("R")


def traceable(operator: Callable[P, R]) -> Callable[P, R]:
    """``operator`` as one node of a symbolic trace, wherever it is called from.

    Its checks and its choice of a path ask for sizes, which a symbolic trace does not know; they run when the graph
    does. (``torch.fx.wrap`` would have to be repeated in every module that calls it.)
    """

    @wraps(operator)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.compiler.is_compiling():
            for given in (*args, *kwargs.values()):
                if isinstance(given, Proxy):
                    return given.tracer.create_proxy("call_function", called, args, kwargs)  # type: ignore[return-value, arg-type]
        return operator(*args, **kwargs)

    return called

"""Forms of operators that another one has taken the place of; they serve for one version, and warn."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def warn_of(old: str, new: str) -> None:
    """Says that ``old`` goes, and what stands in its place."""
    warnings.warn(f"{old} goes with the next version; use {new}", FutureWarning, stacklevel=3)


def took_packed(before: Callable[..., Tensor]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """For an operator of q, k, v that took them packed (B, N, 3, h, d), and gave (B, N, h·c): ``before`` still does."""

    def decorate(operator: Callable[P, R]) -> Callable[P, R]:
        @wraps(operator)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            first: Any = args[0] if args else kwargs.get("qkv")
            # Keys and values are four-dimensional tensors: what else comes second is what came after qkv.
            if "qkv" in kwargs or (isinstance(first, Tensor) and first.dim() == 5 and "k" not in kwargs):
                name = operator.__name__
                warn_of(f"{name}(qkv, ...) of packed heads", f"{name}(q, k, v, ...), each (B, h, N, d)")
                return before(*args, **_renamed(kwargs))  # type: ignore[return-value]
            return operator(*args, **_renamed(kwargs))

        return called

    return decorate


def took_mode(operator: Callable[P, R]) -> Callable[P, R]:
    """For an operator whose ``backend`` was called ``mode``."""

    @wraps(operator)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        return operator(*args, **_renamed(kwargs))

    return called


def _renamed(kwargs: Any) -> dict[str, Any]:
    if "mode" not in kwargs:
        out: dict[str, Any] = kwargs
        return out
    warn_of("mode=", "backend=")
    return {("backend" if name == "mode" else name): value for name, value in kwargs.items()}

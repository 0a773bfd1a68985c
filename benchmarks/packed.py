"""Operators of q, k, v (B, h, N, d) on what one projection gives, and as the next one wants their heads."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def of_packed(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``operator`` of packed heads (B, N, 3, h, d), its heads side by side, (B, N, h·c)."""

    def called(qkv: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return operator(*qkv.permute(2, 0, 3, 1, 4).unbind(0), *args, **kwargs).transpose(1, 2).flatten(2)

    return called

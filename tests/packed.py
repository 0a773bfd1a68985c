"""Operators of q, k, v (B, h, N, d), called with what one projection gives."""

from functools import wraps


def of_packed(operator, *, joins=True):
    """``operator`` of packed heads (B, N, 3, h, d); they come side by side, (B, N, h·c), where it ``joins``."""

    @wraps(operator)
    def called(qkv, *args, **kwargs):
        out = operator(*qkv.permute(2, 0, 3, 1, 4).unbind(0), *args, **kwargs)
        return out.transpose(1, 2).flatten(2) if joins else out

    return called

"""How the heads of tokens lie in memory."""

from torch import Tensor


def empty_token_major(x: Tensor) -> Tensor:
    """An empty (B, h, N, c) like ``x``, laid out token by token, as the projection behind it wants it."""
    batch, num_heads, tokens, width = x.shape
    return x.new_empty(batch, tokens, num_heads, width).transpose(1, 2)

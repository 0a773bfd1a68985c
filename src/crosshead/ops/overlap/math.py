"""Overlapped heads in plain differentiable PyTorch, for what the fast paths cannot follow (``ops/modes.py``)."""

from torch import Tensor

from .. import sdpa
from .views import plain_windows


def plain_attention(
    qkv: Tensor,
    overlap: int,
    scale: float,
    attn_mask: Tensor | None = None,
    factors: Tensor | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """(B, N, h·(d + 2·overlap)) of qkv (B, N, 3, h, d); ``factors`` (h, 1, d + 2·overlap) multiply the queries."""
    q, k, v = plain_windows(qkv, overlap).permute(2, 0, 3, 1, 4).unbind(0)
    if factors is not None:
        q = q * factors
    heads = sdpa.plain_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)
    return heads.transpose(1, 2).flatten(2)


def plain_window_attention(
    qkv: Tensor, bias: Tensor, factors: Tensor | None, overlap: int, scale: float, dropout_p: float = 0.0
) -> Tensor:
    """The same in windows, those of an image together; ``bias`` (windows or 1, h, N, N) is added to the logits."""
    bias = repeat_over_images(bias, qkv.shape[0]).to(qkv.dtype)
    return plain_attention(qkv, overlap, scale, bias, factors, dropout_p=dropout_p)


def repeat_over_images(bias: Tensor, batch: int) -> Tensor:
    """(windows or 1, h, N, N) as (batch or 1, h, N, N), for a batch of images · windows."""
    if bias.shape[0] == 1:
        return bias
    return bias.expand(batch // bias.shape[0], -1, -1, -1, -1).flatten(0, 1)

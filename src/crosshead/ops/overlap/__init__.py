"""Overlapped heads (MOHSA, arXiv 2410.14874)."""

from typing import Any

from ..renamed import warn_of
from .fast import Backend, overlapped_attention
from .naive import naive_overlapped_attention, overlapped_attention_weights
from .views import overlapped_heads
from .windowed import packed_window_attention

__all__ = [
    "Backend",
    "naive_overlapped_attention",
    "overlapped_attention",
    "overlapped_attention_weights",
    "overlapped_heads",
]


def __getattr__(name: str) -> Any:
    if name == "overlapped_window_attention":
        warn_of(name, "overlapped_attention(q, k, v, overlap, attn_bias=...), each (B, h, N, d)")
        return packed_window_attention
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Overlapped heads (MOHSA, arXiv 2410.14874)."""

from .fast import overlapped_attention
from .naive import naive_overlapped_attention, overlapped_attention_weights
from .windowed import overlapped_window_attention
from .windows import overlapped_heads

__all__ = [
    "naive_overlapped_attention",
    "overlapped_attention",
    "overlapped_attention_weights",
    "overlapped_heads",
    "overlapped_window_attention",
]

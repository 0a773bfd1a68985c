"""Talking heads (arXiv 2003.02436), plain and overlapped."""

from .fast import Backend, talking_heads_attention
from .naive import naive_talking_heads_attention, talking_heads_weights

__all__ = ["Backend", "naive_talking_heads_attention", "talking_heads_attention", "talking_heads_weights"]

"""Interleaved heads (IHA, arXiv 2602.21371)."""

from .fast import Backend, interleaved_attention
from .naive import interleaved_attention_weights, naive_interleaved_attention

__all__ = ["Backend", "interleaved_attention", "interleaved_attention_weights", "naive_interleaved_attention"]

"""Dynamically composable heads (DCMHA, arXiv 2405.08553)."""

from .fast import composed_attention
from .naive import composed_attention_weights, naive_composed_attention

__all__ = ["composed_attention", "composed_attention_weights", "naive_composed_attention"]

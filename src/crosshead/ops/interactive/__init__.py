"""Interactive multi-head self-attention at linear cost (iMHSA, arXiv 2402.17507) as pure functions."""

from .factors import AttentionFactors, attention_factors
from .fast import Backend, interactive_attention
from .naive import naive_interactive_attention

__all__ = [
    "AttentionFactors",
    "Backend",
    "attention_factors",
    "interactive_attention",
    "naive_interactive_attention",
]

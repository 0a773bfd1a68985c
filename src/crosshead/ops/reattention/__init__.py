"""Re-attention (DeepViT, arXiv 2103.11886)."""

from .fast import Statistics, reattention
from .naive import naive_reattention, reattention_weights

__all__ = ["Statistics", "naive_reattention", "reattention", "reattention_weights"]

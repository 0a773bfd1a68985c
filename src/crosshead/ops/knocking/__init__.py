"""Knocking heads (arXiv 2510.23052)."""

from .fast import fold, gated_values, knock
from .naive import naive_gated_values, naive_knock

__all__ = ["fold", "gated_values", "knock", "naive_gated_values", "naive_knock"]

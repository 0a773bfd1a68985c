"""The one mechanism that puts any interaction into any backbone, and what it says of it."""

from .change import (
    SparedDecay,
    apply_interactions,
    check_no_adapters,
    interactions_of,
    restore_attention,
    supported,
    swap_attention,
)
from .pretrained import SWAPPED
from .report import Replacement, SwapReport
from .sites import attention_modules

__all__ = [
    "SWAPPED",
    "Replacement",
    "SparedDecay",
    "SwapReport",
    "apply_interactions",
    "attention_modules",
    "check_no_adapters",
    "interactions_of",
    "restore_attention",
    "supported",
    "swap_attention",
]

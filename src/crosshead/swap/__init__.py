"""The one mechanism that puts any interaction into any backbone, and what it says of it."""

from .change import (
    SparedDecay,
    apply_interactions,
    interaction_parameters,
    interactions_of,
    restore_attention,
    supported,
    swap_attention,
)
from .pretrained import SWAPPED
from .report import Replacement, SwapReport
from .sites import attention_modules
from .wrappers import check_no_adapters, check_whole, plain_path, running_eagerly, unwrapped

__all__ = [
    "SWAPPED",
    "Replacement",
    "SparedDecay",
    "SwapReport",
    "apply_interactions",
    "attention_modules",
    "check_no_adapters",
    "check_whole",
    "interaction_parameters",
    "interactions_of",
    "plain_path",
    "restore_attention",
    "running_eagerly",
    "supported",
    "swap_attention",
    "unwrapped",
]

"""Crosshead: vision transformers whose attention heads interact.

Importing it puts the models (``mohsa_*``, their plain baselines, ``ivit_*``) into timm's registry.
"""

from . import models as models
from .layers import (
    InteractiveAttention,
    OverlappedAttention,
    OverlappedTalkingHeadAttention,
    OverlappedWindowAttention,
    OverlapSchedule,
)
from .models import load_authors_checkpoint
from .ops.interactive import interactive_attention
from .ops.overlap import overlapped_attention, overlapped_window_attention
from .ops.talking import talking_heads_attention
from .swap import SwapReport, swap_attention

__version__ = "0.1.0"

__all__ = [
    "InteractiveAttention",
    "OverlapSchedule",
    "OverlappedAttention",
    "OverlappedTalkingHeadAttention",
    "OverlappedWindowAttention",
    "SwapReport",
    "interactive_attention",
    "load_authors_checkpoint",
    "overlapped_attention",
    "overlapped_window_attention",
    "swap_attention",
    "talking_heads_attention",
]

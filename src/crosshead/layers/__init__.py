"""Hosts (kinds of attention module), interactions (what happens between the heads), and the module where they meet."""

from . import hosts as hosts
from .attention import InteractingAttention, from_attention
from .capabilities import Capability
from .constructors import (
    InteractiveAttention,
    OverlappedAttention,
    OverlappedTalkingHeadAttention,
    OverlappedWindowAttention,
)
from .interactions import Inspectable, Interaction, Interactive, Overlap, Talking
from .qkv import Heads, Mixing
from .registry import HOSTS, INTERACTIONS, register_host, register_interaction
from .schedule import PARADIGMS, OverlapSchedule
from .token_grid import TokenGrid

__all__ = [
    "HOSTS",
    "INTERACTIONS",
    "PARADIGMS",
    "Capability",
    "Heads",
    "Inspectable",
    "InteractingAttention",
    "Interaction",
    "Interactive",
    "InteractiveAttention",
    "Mixing",
    "Overlap",
    "OverlapSchedule",
    "OverlappedAttention",
    "OverlappedTalkingHeadAttention",
    "OverlappedWindowAttention",
    "Talking",
    "TokenGrid",
    "from_attention",
    "register_host",
    "register_interaction",
]

"""Hosts (kinds of attention module), interactions (what happens between the heads), and the module where they meet."""

from typing import Any

from ..ops.renamed import warn_of
from . import hosts as hosts
from .attention import InteractingAttention, from_attention
from .capabilities import Capability
from .constructors import (
    interactive_attention_layer,
    overlapped_attention_layer,
    overlapped_talking_head_attention_layer,
    overlapped_window_attention_layer,
)
from .interactions import Inspectable, Interaction, Interactive, Overlap, Talking
from .layer import Heads, Mixing
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
    "Mixing",
    "Overlap",
    "OverlapSchedule",
    "Talking",
    "TokenGrid",
    "from_attention",
    "interactive_attention_layer",
    "overlapped_attention_layer",
    "overlapped_talking_head_attention_layer",
    "overlapped_window_attention_layer",
    "register_host",
    "register_interaction",
]

# Functions of before -> those that have taken their place; they go with the next version.
_RENAMED: dict[str, Any] = {
    "InteractiveAttention": interactive_attention_layer,
    "OverlappedAttention": overlapped_attention_layer,
    "OverlappedTalkingHeadAttention": overlapped_talking_head_attention_layer,
    "OverlappedWindowAttention": overlapped_window_attention_layer,
}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warn_of(name, _RENAMED[name].__name__)
        return _RENAMED[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Parameters around the operators: modules that take the place of timm's."""

from .interactive import InteractiveAttention
from .overlapped import OverlappedAttention
from .schedule import PARADIGMS, OverlapSchedule
from .talking import OverlappedTalkingHeadAttention
from .token_grid import TokenGrid
from .window import OverlappedWindowAttention

__all__ = [
    "PARADIGMS",
    "InteractiveAttention",
    "OverlapSchedule",
    "OverlappedAttention",
    "OverlappedTalkingHeadAttention",
    "OverlappedWindowAttention",
    "TokenGrid",
]

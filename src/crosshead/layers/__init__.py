"""Parameters around the operators: modules that take the place of timm's."""

from .interactive import InteractiveAttention
from .overlapped import OverlappedAttention
from .schedule import PARADIGMS, OverlapSchedule
from .token_grid import TokenGrid

__all__ = ["PARADIGMS", "InteractiveAttention", "OverlapSchedule", "OverlappedAttention", "TokenGrid"]

"""Parameters around the operators: modules that take the place of timm's."""

from .overlapped import OverlappedAttention
from .schedule import PARADIGMS, OverlapSchedule

__all__ = ["PARADIGMS", "OverlapSchedule", "OverlappedAttention"]

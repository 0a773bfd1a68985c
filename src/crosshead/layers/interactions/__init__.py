"""Kinds of interaction between heads, a file each."""

from ..registry import register_interaction
from .base import Interaction
from .dcmha import Composed
from .iha import Interleaved
from .inspectable import Inspectable
from .interactive import Interactive
from .knocking import Knocking
from .overlap import Overlap
from .reattention import Reattention
from .talking import Talking

__all__ = [
    "Composed",
    "Inspectable",
    "Interaction",
    "Interactive",
    "Interleaved",
    "Knocking",
    "Overlap",
    "Reattention",
    "Talking",
]

register_interaction(Overlap)
register_interaction(Interactive)
register_interaction(Talking)
register_interaction(Reattention)
register_interaction(Composed)
register_interaction(Knocking)
register_interaction(Interleaved)

"""Crosshead: vision transformers whose attention heads interact.

Importing it puts the models (``mohsa_*``, their plain baselines, ``ivit_*``) into timm's registry. The command line
alone (``crosshead``, ``python -m crosshead``) imports what it needs when it needs it: torch takes seconds to import,
and ``--help`` needs neither torch nor timm.
"""

import importlib
import sys
from importlib.util import find_spec
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import models as models
    from .conversion import convert_attention
    from .data.datasets.registry import register_dataset
    from .hub import push_to_hub
    from .layers import (
        InteractingAttention,
        Interaction,
        OverlapSchedule,
        from_attention,
        interactive_attention_layer,
        overlapped_attention_layer,
        overlapped_talking_head_attention_layer,
        overlapped_window_attention_layer,
        register_host,
        register_interaction,
    )
    from .models import load_authors_checkpoint
    from .ops.interactive import interactive_attention
    from .ops.overlap import overlapped_attention
    from .ops.talking import talking_heads_attention
    from .probes import probe, register_probe
    from .saved import load, save
    from .swap import SwapReport, restore_attention, supported, swap_attention
    from .tasks import register_metric, register_task

__version__ = "0.2.0"

__all__ = [
    "InteractingAttention",
    "Interaction",
    "OverlapSchedule",
    "SwapReport",
    "convert_attention",
    "from_attention",
    "interactive_attention",
    "interactive_attention_layer",
    "load",
    "load_authors_checkpoint",
    "overlapped_attention",
    "overlapped_attention_layer",
    "overlapped_talking_head_attention_layer",
    "overlapped_window_attention_layer",
    "probe",
    "push_to_hub",
    "register_dataset",
    "register_host",
    "register_interaction",
    "register_metric",
    "register_probe",
    "register_task",
    "restore_attention",
    "save",
    "supported",
    "swap_attention",
    "talking_heads_attention",
]

# Public name -> the room that has it; all others come from ``layers``.
_ROOMS = {
    "SwapReport": "swap",
    "convert_attention": "conversion",
    "interactive_attention": "ops.interactive",
    "load": "saved",
    "load_authors_checkpoint": "models",
    "overlapped_attention": "ops.overlap",
    "probe": "probes",
    "push_to_hub": "hub",
    "register_dataset": "data.datasets.registry",
    "register_metric": "tasks",
    "register_probe": "probes",
    "register_task": "tasks",
    "restore_attention": "swap",
    "save": "saved",
    "supported": "swap",
    "swap_attention": "swap",
    "talking_heads_attention": "ops.talking",
    # Gone with the next version; their rooms say what to use.
    "InteractiveAttention": "layers",
    "OverlappedAttention": "layers",
    "OverlappedTalkingHeadAttention": "layers",
    "OverlappedWindowAttention": "layers",
    "overlapped_window_attention": "ops.overlap",
}


def __getattr__(name: str) -> Any:
    """A public name, from the room that has it; or a room, which were always there."""
    if name in ("models", "swap", "layers", "ops"):
        return importlib.import_module(f".{name}", __name__)
    if name in __all__ or name in _ROOMS:
        return getattr(importlib.import_module(f".{_ROOMS.get(name, 'layers')}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _is_the_command_line() -> bool:
    """Whether this process is ``crosshead`` or ``python -m crosshead``, whose commands import the models themselves."""
    program = sys.argv[0] if sys.argv else ""  # "-m" while Python looks for the module of ``python -m``
    return program == "-m" or PurePath(program).stem == "crosshead"


# Without torch there are no models, and exported ones run all the same (``crosshead.export.runtime``).
if not _is_the_command_line() and find_spec("torch") is not None:
    try:
        importlib.import_module(".models", __name__)
    except (RuntimeError, ImportError, OSError) as error:
        from .libraries import mismatch

        if (sentence := mismatch(error)) is None:
            raise
        raise ImportError(sentence) from None  # it says all that the long one does

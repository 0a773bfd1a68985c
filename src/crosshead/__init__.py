"""Crosshead: vision transformers whose attention heads interact.

Importing it puts the models (``mohsa_*``, their plain baselines, ``ivit_*``) into timm's registry. What stands behind
a name is imported when the name is first used, and the models when timm is: torch takes seconds to import, and a
command line that only answers ``--help`` needs neither.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import models as models
    from .layers import (
        InteractingAttention,
        Interaction,
        InteractiveAttention,
        OverlappedAttention,
        OverlappedTalkingHeadAttention,
        OverlappedWindowAttention,
        OverlapSchedule,
        from_attention,
        register_host,
        register_interaction,
    )
    from .models import load_authors_checkpoint
    from .ops.interactive import interactive_attention
    from .ops.overlap import overlapped_attention, overlapped_window_attention
    from .ops.talking import talking_heads_attention
    from .probes import probe, register_probe
    from .saved import load, save
    from .swap import SwapReport, restore_attention, supported, swap_attention

__version__ = "0.1.0"

__all__ = [
    "InteractingAttention",
    "Interaction",
    "InteractiveAttention",
    "OverlapSchedule",
    "OverlappedAttention",
    "OverlappedTalkingHeadAttention",
    "OverlappedWindowAttention",
    "SwapReport",
    "from_attention",
    "interactive_attention",
    "load",
    "load_authors_checkpoint",
    "overlapped_attention",
    "overlapped_window_attention",
    "probe",
    "register_host",
    "register_interaction",
    "register_probe",
    "restore_attention",
    "save",
    "supported",
    "swap_attention",
    "talking_heads_attention",
]

_ROOMS = ("swap", "probes", "saved", "models", "layers", "ops.interactive", "ops.overlap", "ops.talking")


def __getattr__(name: str) -> Any:
    """A public name, from the room that has it."""
    if name in ("models", "swap", "layers", "ops"):  # rooms, which were always there
        return importlib.import_module(f".{name}", __name__)
    if name in __all__:
        for room in (importlib.import_module(f".{room}", __name__) for room in _ROOMS):
            if hasattr(room, name):
                globals()[name] = getattr(room, name)
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Registration(importlib.abc.MetaPathFinder):
    """Has the models registered with timm as soon as timm is there, whoever imports it.

    A room of this package may be the one that does: registering then waits until that room, which the models need, is
    whole.
    """

    def __init__(self) -> None:
        self.depth = 0

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        if fullname != "timm" and (package != __name__ or "." in rest):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Watched(spec.loader, self)
                return spec
        return None

    def end(self) -> None:
        """An import that was watched has ended."""
        self.depth -= 1
        if self.depth == 0 and "timm" in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            importlib.import_module(".models", __name__)


class _Watched(importlib.abc.Loader):
    """A module's own loader, whose end is noticed."""

    def __init__(self, loader: importlib.abc.Loader, registration: _Registration) -> None:
        self._loader, self._registration = loader, registration

    def __getattr__(
        self, name: str
    ) -> Any:  # ``python -m`` and importlib.resources ask for more than a module
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._registration.depth += 1
        try:
            self._loader.exec_module(module)
        except BaseException:
            self._registration.depth -= 1
            raise
        self._registration.end()


if "timm" in sys.modules:
    importlib.import_module(".models", __name__)
else:
    sys.meta_path.insert(0, _Registration())

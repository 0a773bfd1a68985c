"""The name of ``crosshead.heads.picture`` until the next version."""

from typing import Any

from ..ops.renamed import warn_of
from . import picture


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_of(f"{__name__}.{name}", f"{picture.__name__}.{name}")
    return getattr(picture, name)

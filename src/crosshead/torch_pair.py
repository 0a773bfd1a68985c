"""torch and torchvision are built for one another, and fail in many words where pip has taken two that don't fit."""

import re
from importlib.metadata import PackageNotFoundError, version

__all__ = ["mismatch"]

# Operators that torchvision registers with a torch of another build, symbols that are not there, and its own words.
_SIGNS = re.compile(
    r"operator torchvision::|undefined symbol|torchvision.*compiled with different", re.DOTALL
)


def mismatch(error: BaseException) -> str | None:
    """One sentence where ``error`` comes of a torchvision that is of another torch; None for any other error."""
    if not isinstance(error, RuntimeError | ImportError | OSError) or not _SIGNS.search(str(error)):
        return None
    return (
        f"torch {_version('torch')} and torchvision {_version('torchvision')} were not built for one another; "
        "install both from one place: pip install uv; uv pip install --reinstall torch torchvision"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed as a package)"

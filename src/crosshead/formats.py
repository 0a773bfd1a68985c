"""The number in every file that a run or a saved model leaves, and what the files of earlier versions lack.

    format 1    0.1: no number
    format 2    the number, and the version that wrote the file

A version reads its own format and every earlier one; what an earlier one lacks is put in here, and nowhere else. A
later number is refused. CONTRIBUTING.md says when a format gets a new number, and how long an old one is read.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crosshead import __version__

FORMAT = 2
Values = dict[str, Any]
_IN_A_COMMENT = re.compile(r"# format: ([0-9]{1,9}) \(crosshead ([^)\s]+)\)")


class NewerFormat(ValueError):
    """A file of a later version than this one."""


def numbered(values: Values) -> Values:
    """``values`` for a JSON file, with the number of what is written today."""
    return {"format": FORMAT, "crosshead": __version__, **values}


def as_comment() -> str:
    """``numbered`` for a file whose keys are a user's own."""
    return f"# format: {FORMAT} (crosshead {__version__})\n"


def read_numbered(values: Any, source: Path | str, older: Callable[[Values], Values] | None = None) -> Values:
    """What ``numbered`` was given. ``older`` puts into what has format 1 what that lacks, one of those below.

    Raises:
        NewerFormat: ``source`` is of a later version.
        ValueError: it holds no keys and values.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{source}: expected keys and values, got {type(values).__name__}")
    number = values.get("format", 1)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{source}: format: expected a number from 1, got {number!r}")
    _refuse_newer(number, values.get("crosshead"), source)
    kept = {key: value for key, value in values.items() if key not in ("format", "crosshead")}
    return older(kept) if older is not None and number == 1 else kept


def check_comment(text: str, source: Path | str) -> None:
    """``NewerFormat`` where the first line of ``text`` is ``as_comment`` of a later version."""
    if found := _IN_A_COMMENT.match(text):
        _refuse_newer(int(found[1]), found[2], source)


def _refuse_newer(number: int, version: Any, source: Path | str) -> None:
    if number > FORMAT:
        writer = version if isinstance(version, str) else "a later version"
        raise NewerFormat(
            f"{source} is of format {number}, written by crosshead {writer}, and crosshead {__version__} reads formats "
            f"up to {FORMAT}: install crosshead {writer} or later"
        )


def older_result(values: Values) -> Values:
    """Classification was all there was."""
    return {"metric": "accuracy", "shown": ["accuracy"], "details": {}} | values


def older_classes(values: Values) -> Values:
    return {"scale": None, "class_ids": None} | values


def older_state(values: Values) -> Values:
    """White was at 65535 in pictures of 16 bits; of the data its classes alone were kept."""
    recipe, progress = values.get("recipe"), values.get("progress")
    if isinstance(recipe, dict) and isinstance(recipe.get("data"), dict):
        values = {**values, "recipe": {**recipe, "data": {"white_level": 65535} | recipe["data"]}}
    if isinstance(progress, dict):
        values = {**values, "progress": {"since_best": 0} | progress}
    return {"info": None, "data": None} | values

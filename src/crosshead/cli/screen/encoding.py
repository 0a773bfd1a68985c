"""Terminals and pipes whose encoding lacks a character: it is spelled otherwise, and nothing ends in an error."""

import codecs
import io
from typing import Any, TextIO

_SPELLED = {"±": "+-", "×": "x", "…": "...", "—": "-", "–": "-", "━": "-", "╸": "-", "╺": "-"}


def make_printable(*streams: TextIO) -> None:
    """What ``streams`` can't encode they write as the nearest ASCII, or as an escape that JSON reads back."""
    codecs.register_error("crosshead", _spell)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="crosshead")


def _spell(error: Any) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_SPELLED.get(character) or _escape(character) for character in found), error.end


def _escape(character: str) -> str:
    """As in JSON: beyond the 16 bits of one escape, two surrogates."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))

"""The standard streams: closed ones, ones whose encoding lacks a character, and which process speaks on them."""

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from crosshead.files import printable

_SPELLED = {"±": "+-", "×": "x", "…": "...", "—": "-", "–": "-", "━": "-", "╸": "-", "╺": "-"}


def open_closed_streams() -> None:
    """Where the standard streams are closed (``>&-``), nothing is read and what is written is lost.

    Otherwise the next files that are opened would be in their place, and messages end up in them.
    """
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(null)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


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


class _Escaping:
    """A stream to which only text goes: what would steer a terminal is escaped, whoever prints it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.rich_proxied_file = stream  # rich colours on purpose: what it is given is escaped before

    def write(self, text: str) -> int:
        self._stream.write(printable(text, keep="\n\r\t"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def escaped_output() -> Iterator[None]:
    """While it lasts nothing that is printed steers the terminal: names in files may be anyone's."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and _Escaping(stream) for stream in before)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def is_rank0() -> bool:
    """Whether this is the process that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def print0(line: str) -> None:
    if is_rank0():
        print(line, flush=True)

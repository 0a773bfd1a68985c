"""What may be anyone's: small files, regular ones alone (a pipe or a device has no end) and bounded in size; text from
them, on its way to a terminal or a spreadsheet."""

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

_MOST = 1 << 28  # bytes


def regular(path: str, flags: int, mode: int = 0o644) -> int:
    """An ``opener`` for ``open``: OSError for what is no regular file, without waiting for a pipe's other end."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), mode)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return handle


def read_bytes(path: Path, *, most: int = _MOST) -> bytes:
    """OSError for what can't be read, is no regular file, or has more than ``most`` bytes."""
    with open(path, "rb", opener=regular) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise OSError(errno.EFBIG, f"{size:,} bytes, above the limit of {most:,}", str(path))
        return file.read()


def read_text(path: Path, *, most: int = _MOST, errors: str = "strict") -> str:
    """As UTF-8. OSError as ``read_bytes``; UnicodeDecodeError."""
    return read_bytes(path, most=most).decode("utf-8", errors)


def read_json(path: Path, *, most: int = _MOST) -> Any:
    """OSError as ``read_bytes``; ValueError for what is no JSON, or is nested without end."""
    return parse_json(read_bytes(path, most=most))


def parse_json(content: bytes | str) -> Any:
    """ValueError for what is no JSON, or is nested without end."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


# Control characters, line and paragraph separators, and what turns the direction of writing.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str, *, keep: str = "") -> str:
    """``text`` in one line that does nothing to a terminal: the characters that would are escaped, as JSON does it, but
    for those of ``keep``."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text)


def spreadsheet_cell(value: Any) -> Any:
    """``value`` as a cell of a table for people: text that a spreadsheet would take for a formula begins with '."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return "'" + value
    return value

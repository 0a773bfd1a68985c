"""Lists in a JSON file that is too large to be held at once as Python's objects: one entry after another."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TextIO

_CHUNK = 1 << 22  # characters read at once

Take = Callable[[Any], None]


def read_sections(stream: TextIO, take: Mapping[str, Take]) -> set[str]:
    """Reads an object whose keys name lists, as COCO's files are: each entry of list KEY goes to ``take[KEY]`` and is
    held no longer. Other keys are passed over. Gives the keys of ``take`` that are there.

    Raises:
        ValueError: no JSON, no object, a list that is none or that stands there twice; and what ``take`` raises.
    """
    text = _Text(stream)
    seen: set[str] = set()
    text.expect("{")
    while text.mark() != "}":
        if seen:
            text.expect(",")
        key = text.value()
        if not isinstance(key, str):
            raise ValueError(f"a key of an object is {key!r:.40}, not text")
        text.expect(":")
        if key in seen:
            raise ValueError(f"{key!r} is there twice")
        seen.add(key)
        if key in take:
            _entries(text, key, take[key])
        else:
            text.value()
    text.at += 1
    if text.mark():
        raise ValueError(f"something follows the end of the data, at character {text.place}")
    return seen & take.keys()


def _entries(text: "_Text", key: str, take: Take) -> None:
    if text.mark() != "[":
        raise ValueError(f"{key!r} is no list")
    text.at += 1
    if text.mark() == "]":
        text.at += 1
        return
    while True:
        take(text.value())
        mark = text.mark()
        text.at += 1
        if mark == "]":
            return
        if mark != ",":
            raise ValueError(f"expected , or ] behind an entry of {key!r}, at character {text.place - 1}")


class _Text:
    """A window of the file, and the place in it that is read next."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.text, self.at, self.before = stream, "", 0, 0
        self.decode = json.JSONDecoder().raw_decode

    @property
    def place(self) -> int:
        """In the whole file."""
        return self.before + self.at

    def mark(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\r\n":
                    return self.text[self.at]
                self.at += 1
            if not self._more():
                return ""

    def expect(self, mark: str) -> None:
        if (found := self.mark()) != mark:
            raise ValueError(
                f"expected {mark} at character {self.place}, got {found or 'the end of the file'}"
            )
        self.at += 1

    def value(self) -> Any:
        self.mark()
        while True:
            try:
                value, end = self.decode(self.text, self.at)
            except RecursionError:
                raise ValueError(f"nested too deeply at character {self.place}") from None
            except ValueError as error:  # cut off by the window, or damaged
                if self._more():
                    continue
                place = self.before + getattr(error, "pos", self.at)
                raise ValueError(
                    f"damaged at character {place} ({getattr(error, 'msg', error)!s:.60})"
                ) from None
            # A number at the window's end may go on behind it.
            if end < len(self.text) or not self._more():
                self.at = end
                return value

    def _more(self) -> bool:
        """Drops what was read and reads on, twice as much as is left: a long entry is not begun too often."""
        left = self.text[self.at :]
        chunk = self.stream.read(max(_CHUNK, len(left)))
        if not chunk:
            return False
        self.before += self.at
        self.text, self.at = left + chunk, 0
        return True

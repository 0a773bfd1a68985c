"""The blocks of code and commands in the documents."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROGRAMS = ("crosshead", "torchrun", "make", "python", "python3", "pip", "uv", ".")
_MARKER = re.compile(r"<!-- not run: (.+) -->")


@dataclass(frozen=True)
class Block:
    """``language`` is that of a fence, or None of an indented block; ``reason`` says why it is not run."""

    document: Path
    line: int
    language: str | None
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command in it; none where it shows something else."""
        if self.language not in (None, "sh"):
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language is None:
            lines = [line for line in lines if line.partition(" ")[0] in PROGRAMS]
        return [shlex.split(line, comments=True) for line in lines if line.strip()]


def documents() -> list[Path]:
    own = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return [*own, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks() -> list[Block]:
    return [block for document in documents() for block in _blocks(document)]


def _blocks(document: Path) -> Iterator[Block]:
    lines = document.read_text(encoding="utf-8").splitlines()
    number, reason = 0, None
    while number < len(lines):
        line, start = lines[number], number
        if fence := re.match(r"( *)```(\w*)", line):
            end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == "```")
            text = "\n".join(each.removeprefix(fence[1]) for each in lines[number + 1 : end]) + "\n"
            yield Block(document, start + 1, fence[2], text, reason)
            number, reason = end + 1, None
        elif (
            line.startswith("    ")
            and (start == 0 or not lines[start - 1].strip())
            and not _is_item(lines, start)
        ):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            text = "\n".join(each[4:] for each in lines[start:number]).rstrip() + "\n"
            yield Block(document, start + 1, None, text, reason)
            reason = None
        else:
            marker = _MARKER.fullmatch(line.strip())
            reason = marker[1] if marker else reason if not line.strip() else None
            number += 1


def _is_item(lines: list[str], number: int) -> bool:
    """Whether an indented line goes on with an item of a list."""
    before = next((each for each in reversed(lines[:number]) if each.strip()), "")
    return bool(re.match(r" *([-*]|\d+\.) ", before)) and not before.startswith("    ")

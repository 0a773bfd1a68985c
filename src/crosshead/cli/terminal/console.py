"""What rich prints: tables as wide as they are where no terminal sets a width, and the bar of what reads images."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from crosshead.files import printable

_WIDEST = 1000


def table_console() -> Console:
    """A console on stdout; in a pipe or a file nothing is cut or wrapped."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDEST
    return Console(highlight=False, width=width)


def plain(text: str) -> str:
    """For rich, as it stands: neither markup nor anything that steers a terminal."""
    return escape(printable(text, keep="\n"))


@contextmanager
def reading_bar(doing: str = "reading") -> Iterator[Callable[[int, int], None]]:
    """Gives ``progress(done, total)``; nothing is drawn where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)

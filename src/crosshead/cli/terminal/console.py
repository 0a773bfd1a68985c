"""Where tables are printed: as wide as they are where no terminal sets a width."""

import shutil
import sys

from rich.console import Console
from rich.markup import escape

from crosshead.text import printable

_WIDEST = 1000


def table_console() -> Console:
    """A console on stdout; in a pipe or a file nothing is cut or wrapped."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDEST
    return Console(highlight=False, width=width)


def plain(text: str) -> str:
    """For rich, as it stands: neither markup nor anything that steers a terminal."""
    return escape(printable(text, keep="\n"))

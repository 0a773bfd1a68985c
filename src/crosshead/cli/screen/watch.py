"""What watches a run on the terminal: a progress bar where there is one, plain lines otherwise."""

import sys
from typing import TYPE_CHECKING

from crosshead.cli.screen.bar import BarObserver
from crosshead.cli.screen.lines import LineObserver

if TYPE_CHECKING:
    from crosshead.recipe.schema import LogConfig
    from crosshead.train import Observer


def watch(log: "LogConfig") -> "Observer":
    """The observer for this terminal, or the one that the recipe's ``log.progress`` asks for."""
    bar = sys.stdout.isatty() if log.progress == "auto" else log.progress == "bar"
    return BarObserver() if bar else LineObserver(every_steps=log.every_steps)

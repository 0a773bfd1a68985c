"""What watches a run on the terminal: a progress bar where there is one, plain lines otherwise."""

import sys
from typing import TYPE_CHECKING

from crosshead.cli.terminal.bar import ProgressBar
from crosshead.cli.terminal.lines import LineLogger

if TYPE_CHECKING:
    from crosshead.recipe.schema import LogConfig
    from crosshead.train import Callback


def watch(log: "LogConfig") -> "Callback":
    """The callback for this terminal, or the one that the recipe's ``log.progress`` asks for."""
    bar = sys.stdout.isatty() if log.progress == "auto" else log.progress == "bar"
    return ProgressBar() if bar else LineLogger(every_steps=log.every_steps)

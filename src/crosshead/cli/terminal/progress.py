"""A run as it goes: a progress bar where the terminal draws one, plain lines otherwise."""

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from crosshead.cli.terminal.console import plain
from crosshead.cli.terminal.wording import beginning, duration, ending, evaluation, figures
from crosshead.tasks import METRICS
from crosshead.train import EndRecord, EvalRecord, EventRecord, RunInfo, StepRecord

if TYPE_CHECKING:
    from crosshead.recipe.schema import LogConfig
    from crosshead.train import Callback


_COLUMNS = (
    TextColumn("epoch {task.fields[epoch]}"),
    BarColumn(bar_width=None),
    TextColumn("{task.percentage:3.0f}%"),
    TextColumn("{task.fields[figures]}"),
)


class ProgressBar:
    """One bar over all steps; each evaluation leaves a line above it."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._progress = Progress(*_COLUMNS, console=self._console, transient=True, expand=True)
        self._bar: TaskID | None = None
        self._epochs = 0
        self._shown: tuple[str, ...] = ()

    def on_start(self, info: RunInfo) -> None:
        self._epochs, self._shown = info.epochs, info.shown
        title, *rest = beginning(info)
        self._console.print(f"[bold]{plain(title)}[/bold]", *map(plain, rest), sep="\n")
        self._bar = self._progress.add_task(
            "", total=info.total_steps, completed=info.start_step, epoch=f"1/{info.epochs}", figures=""
        )
        self._progress.start()

    def on_step(self, record: StepRecord) -> None:
        assert self._bar is not None, "a step before the start"
        counts = figures(record.counts, record.counts)
        counts += "  " if counts else ""
        epoch = min(int(record.epoch) + 1, self._epochs)
        self._progress.update(
            self._bar,
            completed=record.step,
            epoch=f"{epoch}/{self._epochs}",
            figures=f"loss {METRICS['loss'].text(record.epoch_loss)}  {counts}"
            f"{record.images_per_second:,.0f} images/s  {duration(record.seconds_left)} left",
        )

    def on_eval(self, record: EvalRecord) -> None:
        style = "green" if record.best else "default"
        line = f"epoch {record.epoch:5.1f}  {evaluation(record, self._shown)}"
        self._console.print(line, style=style)

    def on_event(self, record: EventRecord) -> None:
        # Routine, which the folder's events.jsonl keeps; and what is on stderr already.
        if record.kind in ("checkpoint", "log_failed"):
            return
        self._console.print(plain(record.message), style="yellow" if record.is_warning else "dim")

    def on_end(self, record: EndRecord) -> None:
        self._progress.stop()
        for line in ending(record):
            self._console.print(plain(line), style="red" if record.result is None else "default")


_SILENT_S = 30.0
_QUIET_S = 2.0  # lines about steps keep this distance, so that quick steps don't fill a log


class LineLogger:
    """Prints a line every ``every_steps`` steps, but not more than one in two seconds, the first step's at once and one
    after every half minute of silence; and one an evaluation."""

    def __init__(self, every_steps: int) -> None:
        self._every_steps = every_steps
        self._last_line = float("-inf")
        self._total = 0
        self._shown: tuple[str, ...] = ()

    def on_start(self, info: RunInfo) -> None:
        self._total, self._shown = info.total_steps, info.shown
        for line in beginning(info):
            self._say(line)

    def on_step(self, record: StepRecord) -> None:
        now = time.monotonic()
        due = record.step % self._every_steps == 0 or now - self._last_line > _SILENT_S
        if not due or now - self._last_line < _QUIET_S:
            return
        self._last_line = now
        counts = figures(record.counts, record.counts)
        counts += "  " if counts else ""
        self._say(
            f"epoch {record.epoch:.2f}  step {record.step}/{self._total}  loss {record.loss:.4f} "
            f"(epoch's mean {METRICS['loss'].text(record.epoch_loss)})  {counts}"
            f"lr {record.lr:.2e}  {record.images_per_second:,.0f} images/s  {duration(record.seconds_left)} left"
        )

    def on_eval(self, record: EvalRecord) -> None:
        self._say(f"epoch {record.epoch:.2f}  {evaluation(record, self._shown)}")

    def on_event(self, record: EventRecord) -> None:
        # Routine, which the folder's events.jsonl keeps; and what is on stderr already.
        if record.kind in ("checkpoint", "log_failed"):
            return
        print(record.message, file=sys.stderr if record.is_warning else sys.stdout, flush=True)

    def on_end(self, record: EndRecord) -> None:
        for line in ending(record):
            self._say(line)

    def _say(self, line: str) -> None:
        print(line, flush=True)


def watch(log: "LogConfig") -> "Callback":
    """The callback for this terminal, or the one that the recipe's ``log.progress`` asks for."""
    bar = sys.stdout.isatty() if log.progress == "auto" else log.progress == "bar"
    return ProgressBar() if bar else LineLogger(every_steps=log.every_steps)

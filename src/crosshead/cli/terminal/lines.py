"""A run told in plain lines, for files, pipes and terminals without cursor control."""

import sys
import time

from crosshead.cli.terminal.wording import beginning, duration, ending, evaluation, figures
from crosshead.tasks import METRICS
from crosshead.train import EndRecord, EvalRecord, EventRecord, RunInfo, StepRecord

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

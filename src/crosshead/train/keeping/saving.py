"""When a checkpoint is due, and what is kept."""

import time
from typing import Any

from torch import Tensor

from crosshead.recipe.schema import CheckpointConfig
from crosshead.train.keeping.checkpoint import CheckpointStore
from crosshead.train.keeping.manifest import Damaged
from crosshead.train.keeping.state import TrainState
from crosshead.train.keeping.writer import BackgroundWriter, Written, failure
from crosshead.train.processes.sharding import is_sharded
from crosshead.train.telling.records import EventRecord


class Saver:
    """Saves a run's state below its folder; does nothing in processes other than the leading one (``active``).

    Training waits while the tensors are copied; a thread writes the copies. ``context`` goes into every
    checkpoint beside the state.
    """

    def __init__(
        self, store: CheckpointStore, config: CheckpointConfig, context: dict[str, Any], *, active: bool
    ) -> None:
        self.store, self.config, self.context, self.active = store, config, context, active
        self._writer = BackgroundWriter()
        self._ended: list[Written] = []
        self._last_save = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether the recipe wants a checkpoint after ``step``, in the middle of an epoch."""
        if self.config.every_steps is not None and step % self.config.every_steps == 0:
            return True
        minutes = (time.monotonic() - self._last_save) / 60
        return self.config.every_minutes is not None and minutes >= self.config.every_minutes

    def save(self, state: TrainState) -> None:
        """Copy the state now and have it written."""
        self._last_save = time.monotonic()
        if self.active or is_sharded(state.model):
            tensors, values = state.snapshot()
        if self.active:
            step, best_step = state.progress.step, state.progress.best_step
            job = lambda: self._write(step, best_step, tensors, {**self.context, **values})  # noqa: E731
            self._ended += self._writer.submit(job)

    def poll(self) -> list[EventRecord]:
        """Events about the checkpoints that have been written, or could not be, since the last call."""
        ended, self._ended = self._ended + self._writer.poll(), []
        return [_event(written) for written in ended]

    def finish(self) -> list[EventRecord]:
        """Wait for what is being written; like ``poll``."""
        self._ended += self._writer.wait()
        return self.poll()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def _write(
        self, step: int, best_step: int | None, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]
    ) -> Written:
        started = time.perf_counter()
        error = untidy = None
        try:
            self.store.write(step, tensors, state)
        except (OSError, Damaged) as problem:
            error = failure(problem)
        else:
            untidy = self._tidy(best_step)
        return Written(step, time.perf_counter() - started, error, untidy)

    def _tidy(self, best_step: int | None) -> str | None:
        """Point ``best`` and delete what is not kept; says what could not be done."""
        doing = "best could not be pointed at the best one"
        try:
            if best_step is not None and self.store.path(best_step).exists():
                self.store.point_best(best_step)
            doing = "older ones could not be deleted"
            self.store.prune(self.config.keep_last, best_step)
        except OSError as problem:
            return f"{doing}: {failure(problem)}"
        return None


def _event(written: Written) -> EventRecord:
    details = {"seconds": written.seconds}
    if written.error is not None:
        message = (
            f"the checkpoint of step {written.step} could not be written: {written.error}. Training goes on, the "
            "checkpoints before are untouched, and the next one is tried when it is due"
        )
        return EventRecord("checkpoint_failed", message, written.step, details)
    message = f"checkpoint of step {written.step} written in {written.seconds:.1f} s"
    if written.untidy is not None:
        message += f", but {written.untidy}. Training goes on, and this is tried again after the next one"
        return EventRecord("tidying_failed", message, written.step, details)
    return EventRecord("checkpoint", message, written.step, details)

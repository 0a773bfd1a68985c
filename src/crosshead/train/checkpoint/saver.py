"""When a checkpoint is due, and what is kept. A thread writes it, while training goes on."""

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from crosshead.recipe.schema import CheckpointConfig
from crosshead.train.checkpoint.state import Progress, TrainState
from crosshead.train.checkpoint.store import CheckpointStore
from crosshead.train.distributed.sharding import is_sharded
from crosshead.train.events import EventRecord
from crosshead.train.files import Damaged
from crosshead.train.run_folder.lock import FolderLock

# Before the last checkpoint is tried again: a quota or a network disk may have had a bad moment.
RETRY_PAUSES_S = (1.0, 4.0)


@dataclass(frozen=True)
class Copy:
    """A state as it is to be written."""

    step: int
    best_step: int | None
    tensors: dict[str, dict[str, Tensor]]
    values: dict[str, Any]


@dataclass(frozen=True)
class Written:
    """A finished job. ``error`` says why there is no checkpoint; ``untidy`` what failed after it was there."""

    step: int
    seconds: float
    error: str | None
    untidy: str | None


class BackgroundWriter:
    """Runs one job at a time, in order. A second one waits for the first, so copies never pile up in memory."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._job: Future[Written] | None = None

    def submit(self, job: Callable[[], Written]) -> list[Written]:
        """Start ``job`` when the one before has ended; returns what that came to."""
        before = self.wait()
        self._job = self._pool.submit(job)
        return before

    def poll(self) -> list[Written]:
        """What has ended since the last look."""
        return self.wait() if self._job is not None and self._job.done() else []

    def wait(self) -> list[Written]:
        if self._job is None:
            return []
        job, self._job = self._job, None
        return [job.result()]

    def close(self) -> None:
        self._pool.shutdown(wait=True)


class Saver:
    """Saves a run's state below its folder; does nothing in processes other than the leading one (``active``).

    Training waits while the tensors are copied; a thread writes the copies. ``context`` goes into every
    checkpoint beside the state.
    """

    def __init__(
        self,
        store: CheckpointStore,
        config: CheckpointConfig,
        context: dict[str, Any],
        *,
        active: bool,
        lock: FolderLock | None = None,
    ) -> None:
        self.store, self.config, self.context, self.active = store, config, context, active
        self._lock = lock
        self._writer = BackgroundWriter()
        self._unwritten: Copy | None = None  # the newest copy, until it is on disk
        self._untidy: Copy | None = None  # the newest that is there, until all is tidy
        self._kept_best: tuple[int | None, dict[str, float], dict[str, Any]] = (None, {}, {})
        self._ended: list[Written] = []
        self._last_save = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether the recipe wants a checkpoint after ``step``, in the middle of an epoch."""
        if self.config.every_steps is not None and step % self.config.every_steps == 0:
            return True
        minutes = (time.monotonic() - self._last_save) / 60
        return self.config.every_minutes is not None and minutes >= self.config.every_minutes

    def save(self, state: TrainState) -> None:
        """Copy the state now and have it written; what was not written before it is given up."""
        self._last_save = time.monotonic()
        self._ended += self._writer.wait()
        self._unwritten = None
        if self.active:
            self._resolve_best(state.progress)
        if self.active or is_sharded(state.model):
            tensors, values = state.snapshot()
        if self.active:
            progress = state.progress
            copy = Copy(progress.step, progress.best_step, tensors, {**self.context, **values})
            self._unwritten = copy
            self._writer.submit(lambda: self._write(copy))

    def lost_folder(self) -> str | None:
        """What became of the run's folder where it is not in its place any more, as the ``lock`` knows it."""
        return None if self._lock is None else self._lock.lost()

    @property
    def reading(self) -> CheckpointStore:
        """Where earlier checkpoints are: the folder may have been renamed in the middle of the run."""
        moved = None if self._lock is None else self._lock.moved_to()
        return self.store if moved is None else CheckpointStore(moved)

    def _resolve_best(self, progress: Progress) -> None:
        """Fall back to the last best that was written where a later one could not be.

        So every checkpoint names a best that is there, or itself.
        """
        step = progress.best_step
        there = True if step is None else self.reading.is_there(step)
        if there:
            self._kept_best = step, progress.best, progress.details
        elif there is False and step != progress.step:
            self._fall_back(progress)

    def _fall_back(self, progress: Progress) -> None:
        """Take the last best that was written for the best, where it is still there."""
        step = self._kept_best[0]
        if step is not None and self.reading.is_there(step) is False:
            self._kept_best = (None, {}, {})
        progress.best_step, progress.best, progress.details = self._kept_best

    def poll(self) -> list[EventRecord]:
        """Events about the checkpoints that have been written, or could not be, since the last call."""
        ended, self._ended = self._ended + self._writer.poll(), []
        return [_event(written) for written in ended]

    def finish(self) -> list[EventRecord]:
        """Wait for what is being written; like ``poll``."""
        self._ended += self._writer.wait()
        return self.poll()

    def secure(self) -> Copy | None:
        """At the end: try the last state again where it could not be written, and to tidy up: ``best`` may lead to
        an older one. What is left over is returned."""
        self._ended += self._writer.wait()
        for pause in RETRY_PAUSES_S if self.lost_folder() is None else ():
            if self._unwritten is not None:
                time.sleep(pause)
                self._ended.append(self._write(self._unwritten))
            elif self._untidy is not None:
                time.sleep(pause)
                self._tidy(self._untidy)
        return self._unwritten

    def has(self, step: int) -> bool:
        """Whether ``step`` is on disk, whole, or held to be written. Checkpoints may be deleted by others."""
        self._ended += self._writer.wait()
        return self._unwritten is not None or self.store.find(step) is not None

    def replace_lost(self, state: TrainState, *, evaluated: bool) -> None:
        """Save again where someone has deleted the last checkpoint; it is the best now if that one is gone too and
        this one was ``evaluated``."""
        progress = state.progress
        if progress.best_step is not None and self.reading.find(progress.best_step) is None:
            progress.best_step = progress.step if evaluated else None
            progress.best, progress.details = progress.latest if evaluated else {}, {}
        self.save(state)

    def give_up(self, progress: Progress) -> None:
        """The last state is lost: fall back to the best that was written where it was the best."""
        if progress.best_step == progress.step:
            self._fall_back(progress)

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def _write(self, copy: Copy) -> Written:
        started = time.perf_counter()
        error = untidy = None
        if gone := self.lost_folder():  # and is not made again: nothing in it would say what the run is
            return Written(copy.step, time.perf_counter() - started, gone, None)
        try:
            self.store.write(copy.step, copy.tensors, copy.values)
        except (OSError, Damaged, MemoryError) as problem:
            error = _failure(problem)
        else:
            self._unwritten = None
            untidy = self._tidy(copy)
        return Written(copy.step, time.perf_counter() - started, error, untidy)

    def _tidy(self, copy: Copy) -> str | None:
        """Point ``best`` and delete what is not kept; says what could not be done."""
        self._untidy, best_step = copy, copy.best_step
        doing = "best could not be pointed at the best one"
        try:
            if best_step is not None and os.path.isdir(self.store.path(best_step)):
                self.store.put_back(best_step)
                self.store.point_best(best_step)
            doing = "older ones could not be deleted"
            self.store.prune(self.config.keep_last, best_step)
        except OSError as problem:
            return f"{doing}: {_failure(problem)}"
        self._untidy = None
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


def _failure(error: OSError | Damaged | MemoryError) -> str:
    """What to say about work on a checkpoint that failed."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, OSError):
        return f"{error.strerror or error} ({error.filename or 'while writing'})"
    return f"what was written does not read back: {error}"

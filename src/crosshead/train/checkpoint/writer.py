"""Checkpoints are written by a thread, while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from crosshead.train.files import Damaged


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


def failure(error: OSError | Damaged | MemoryError) -> str:
    """What to say about work on a checkpoint that failed."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, OSError):
        return f"{error.strerror or error} ({error.filename or 'while writing'})"
    return f"what was written does not read back: {error}"

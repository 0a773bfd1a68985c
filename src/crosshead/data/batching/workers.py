"""Processes that make batches: kept from one epoch to the next, watched, and done without where they fail."""

import atexit
import math
import multiprocessing
import signal
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crosshead.data.base import Batch, each_tensor
from crosshead.data.batching.batches import Batches
from crosshead.data.batching.order import Place

# What asks a run to stop, as far as a system knows it: Windows has neither of the last two.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
)
_LOOK_S = 1.0  # how often whoever waits for a batch looks whether to stop, and whether all workers live
_LATE, _IN_A_WORKER = "DataLoader timed out", "Caught "  # how torch's errors begin
_REMEDY = "data.num_workers=0 does without workers"
_MORE_SHARED_MEMORY = "give the machine more shared memory (/dev/shm; docker run --shm-size=8g)"
_ALL: "weakref.WeakSet[Workers]" = weakref.WeakSet()

Job = tuple[int | None, Place]  # the epoch, where there are any


class WorkersLost(Exception):
    """The workers make no batches any more. The message says why, and what to do."""


class Stopped(Exception):
    """Whoever waits for a batch was asked to stop."""


@dataclass(frozen=True)
class _Unshared:
    """What a worker hands over in the place of a batch that it could not put into shared memory."""

    reason: str


class Workers:
    """``number`` processes for the batches of one set, started when they are first needed.

    They stay from one pass to the next, which may be another epoch: what is random in a batch is a function of (seed,
    epoch, index) alone, and each job names its epoch.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._jobs: list[Job] = []
        self._loader: DataLoader[Batch] | None = None
        self._source: Any = None
        self._processes: set[Any] = set()
        self._idle = False  # all that was asked for was handed over
        _ALL.add(self)

    def make(
        self,
        batches: Any,
        places: Sequence[Any],
        *,
        stopped: Callable[[], bool] = lambda: False,
        patience_s: float = math.inf,
    ) -> Iterator[Any]:
        """``batches[place]`` of all ``places``, in order: batches, as a rule.

        Raises:
            WorkersLost: one has died, could not hand over a batch, or none came for ``patience_s`` seconds. All are
                ended.
            Stopped: ``stopped`` said so while a batch was waited for.
        """
        epoch = getattr(batches, "epoch", None)
        self._jobs[:] = [(epoch, place) for place in places]
        self._begin(batches)
        for number in range(1, len(places) + 1):
            try:
                batch = self._next(stopped, patience_s)
            except WorkersLost:
                self.end(at_once=True)
                raise
            self._idle = number == len(places)
            yield batch

    def end(self, *, at_once: bool = False) -> None:
        """End the processes; ``at_once`` where they may hang."""
        source, self._source, self._loader, self._idle = self._source, None, None, False
        if source is None:
            return
        if at_once:
            self._kill()
        source._shutdown_workers()
        self._kill()  # those that did not listen: they ignore the SIGTERM that torch and Python send, and wait for
        self._processes.clear()

    def _kill(self) -> None:
        for process in self._processes:
            if process.is_alive():
                process.kill()

    def _begin(self, batches: Batches[Any]) -> None:
        if self._idle and self._loader is not None:
            self._idle = False
            try:
                self._source = iter(self._loader)
                return
            except (
                RuntimeError,
                OSError,
            ):  # one was killed while it had nothing to do, or takes long to answer
                self.end(at_once=True)
        self.end()
        before = set(multiprocessing.active_children())
        with _signals_held(), warnings.catch_warnings():
            # At every start, from every process, what a run says once.
            warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
            self._loader = _loader(_Made(batches), self._jobs, self.number)
            self._source = iter(self._loader)
        self._processes = set(multiprocessing.active_children()) - before

    def _next(self, stopped: Callable[[], bool], patience_s: float) -> Batch:
        started = time.monotonic()
        while True:
            try:
                batch = next(self._source)
            except (RuntimeError, OSError, EOFError) as error:
                if str(error).startswith(_IN_A_WORKER):  # the data's fault
                    raise
                if not str(error).startswith(_LATE):
                    raise WorkersLost(self._cause(error)) from error
                waited = time.monotonic() - started
                if stopped():
                    raise Stopped from None
                if waited >= patience_s:
                    raise WorkersLost(
                        f"no batch came from the data's workers for {waited:.0f} s; {_REMEDY}"
                    ) from None
                continue
            if isinstance(batch, _Unshared):
                raise WorkersLost(
                    f"a worker could not put its batch into shared memory ({batch.reason}); {_MORE_SHARED_MEMORY}, or "
                    f"set data.num_workers=0, which needs none"
                )
            return batch

    def _cause(self, error: Exception) -> str:
        """Which worker died of what, as far as its exit code tells."""
        # A process that dies closes its connections first, and is dead a moment later.
        ending = wait([process.sentinel for process in self._processes], timeout=_LOOK_S)
        for process in self._processes:
            if process.sentinel in ending:
                process.join(_LOOK_S)
        dead = [process for process in self._processes if process.exitcode]
        if not dead:
            return f"the data's workers can't be reached any more ({error}); {_REMEDY}"
        pid, code = dead[0].pid, dead[0].exitcode
        if code == -getattr(signal, "SIGBUS", 0):
            return f"a worker of the data (process {pid}) ran out of shared memory; {_MORE_SHARED_MEMORY}; {_REMEDY}"
        if code == -getattr(signal, "SIGKILL", 0):
            why = "was killed, as the system does where memory runs out"
        elif code < 0:
            why = f"was killed by {signal.Signals(-code).name}"
        else:
            why = f"ended with code {code}"
        return f"a worker of the data (process {pid}) {why}; {_REMEDY}, and fewer need less memory"


class _Made(Dataset[Any]):
    """What the processes do with a job: they make the batch, and put it where the run's process can see it.

    torch does the latter in a thread, where a failure is printed, and whoever waits for the batch waits for ever.
    """

    def __init__(self, batches: Batches[Any]) -> None:
        self.batches = batches

    def __getitem__(self, job: Job) -> Batch | _Unshared:
        epoch, place = job
        if epoch is not None:
            self.batches.epoch = epoch  # type: ignore[attr-defined]  # those of training have one
        batch = self.batches[place]
        if not isinstance(batch, Batch):  # no tensors, which alone go through shared memory
            return batch
        try:
            parts = (batch.images, batch.targets, batch.index)
            images, targets, index = (each_tensor(part, Tensor.share_memory_) for part in parts)
        except (RuntimeError, OSError, MemoryError) as error:
            return _Unshared(str(error).splitlines()[0])
        return replace(batch, images=images, targets=targets, index=index)


def pinned(batch: Batch) -> Batch:
    """In page-locked memory where there is a GPU, as the workers' batches are."""
    return batch.pin_memory() if torch.cuda.is_available() else batch


def _loader(made: _Made, jobs: list[Job], number: int) -> "DataLoader[Batch]":
    return DataLoader(
        made,
        batch_size=None,
        sampler=jobs,  # type: ignore[arg-type]  # any iterable of what the dataset takes
        num_workers=number,
        persistent_workers=True,
        multiprocessing_context=_start_method(),
        worker_init_fn=_ignore_signals,
        timeout=_LOOK_S,
        pin_memory=torch.cuda.is_available(),
        # Its own generator: otherwise every epoch consumes the global one, which models draw from.
        generator=torch.Generator().manual_seed(0),
    )


def _start_method() -> str | None:
    # Python 3.14's own choice on Linux would import everything anew in each worker, and its workers would not start
    # with the signals blocked.
    return "fork" if sys.platform == "linux" else None


@atexit.register
def _end_all() -> None:
    """Ends the workers of loaders that were left in the middle and are still held, by a traceback say.

    Python itself would send them SIGTERM and wait for them, which ignore it.
    """
    for workers in list(_ALL):
        workers.end(at_once=True)


def _ignore_signals(worker: int) -> None:
    # A signal to the whole group is the trainer's to answer: it still needs batches to finish its step.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Workers start with these blocked, so that none is hit before it ignores them.

    And torch's answer to a worker's death is taken back, an exception wherever the run happens to be, in the middle of
    an update too: it is noticed where a batch is waited for.
    """
    chld = getattr(signal, "SIGCHLD", None)
    before = None if chld is None else signal.getsignal(chld)
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    held = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        if chld is not None and signal.getsignal(chld) is not before:
            signal.signal(chld, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)

"""A process that hangs or dies ends the group within a set time, with a message that names it."""

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from enum import IntEnum

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from crosshead.train.distributed import World
from crosshead.train.result import EXIT_HUNG


class Phase(IntEnum):
    """Where in a step a process is, in order."""

    DATA = 0
    FORWARD_BACKWARD = 1
    EXCHANGE = 2
    EVALUATION = 3
    EVALUATION_EXCHANGE = 4

    def __str__(self) -> str:
        return {
            Phase.DATA: "waiting for data",
            Phase.FORWARD_BACKWARD: "in the forward or backward pass",
            Phase.EXCHANGE: "waiting for the other processes",
            Phase.EVALUATION: "evaluating",
            Phase.EVALUATION_EXCHANGE: "waiting for the other processes after an evaluation",
        }[self]


Position = tuple[int, int, int]  # step, phase, part of it
_FAILED = "crosshead/failed"


class Watchdog:
    """Every process posts where it is; whoever has not moved for ``timeout_s`` looks who is behind.

    The process that is behind is the one at fault: the others wait for it. It is named, its threads' stacks are
    printed if it still can, and every process exits with ``EXIT_HUNG``. In a world of one nothing is watched.
    """

    def __init__(
        self, world: World, timeout_s: float, report: Callable[[str], None] = lambda message: None
    ) -> None:
        self.world, self.timeout_s, self.report = world, timeout_s, report
        self._position: Position = (0, 0, 0)
        self._moved = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._store: dist.Store | None = None

    def __enter__(self) -> "Watchdog":
        if self.world.store is not None:
            self._store = (
                self.world.store.clone()
            )  # a connection of its own: the other one may be in a long wait
            self._store.set_timeout(timedelta(seconds=max(self.timeout_s, 5)))
            self._moved = time.monotonic()
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def beat(self, step: int, phase: Phase, part: int = 0) -> None:
        """This process has come as far as this."""
        self._position = (step, phase, part)
        self._moved = time.monotonic()

    def fail(self, message: str) -> None:
        """Tell the others why this process ends, so that they end too and can say whose fault it was."""
        if self._store is not None:
            with contextlib.suppress(RuntimeError):  # the store went with the process that kept it
                self._store.compare_set(_FAILED, "", f"process {self.world.rank} failed: {message}")

    def failure(self) -> str | None:
        """What another process said before it failed; None also where the store went with it."""
        if self._store is not None:
            with contextlib.suppress(RuntimeError):
                if self._store.check([_FAILED]):
                    return self._store.get(_FAILED).decode()
        return None

    def _watch(self) -> None:
        pause = min(max(self.timeout_s / 4, 0.1), 5.0)
        while not self._stop.wait(pause):
            try:
                self._look()
            except RuntimeError as error:  # torch's store errors derive from it
                if not self._stop.wait(2 * pause):
                    self._end(
                        f"the group's store, which process 0 or torchrun keeps, does not answer: {error}"
                    )

    def _look(self) -> None:
        assert self._store is not None
        self._store.set(f"crosshead/at/{self.world.rank}", json.dumps(self._position))
        failure = self.failure()
        if failure is not None and not self._stop.wait(1.0):
            self._end(failure)
        still = time.monotonic() - self._moved
        if still > self.timeout_s:
            behind = self._who_is_behind()
            message = "; ".join(
                f"process {rank} is at step {at[0]}, {Phase(at[1])}" for rank, at in behind.items()
            )
            message = (
                f"nothing has moved for {still:.0f} s (train.rank_timeout_s {self.timeout_s:g}): {message}"
            )
            self._store.compare_set(_FAILED, "", message)
            if self.world.rank in behind:
                print(f"process {self.world.rank}, where every thread is:", file=sys.stderr)
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
            self._end(message)

    def _who_is_behind(self) -> dict[int, Position]:
        assert self._store is not None
        positions: dict[int, Position] = {}
        for rank in range(self.world.size):
            name = f"crosshead/at/{rank}"
            positions[rank] = (
                tuple(json.loads(self._store.get(name))) if self._store.check([name]) else (0, 0, 0)
            )
        positions[self.world.rank] = self._position
        last = min(positions.values())
        return {rank: position for rank, position in positions.items() if position == last}

    def _end(self, message: str) -> None:
        print(f"process {self.world.rank} ends: {message}", file=sys.stderr, flush=True)
        get_error_handler().record_exception(RuntimeError(message))
        if self.world.leads:
            self.report(message)
        os._exit(EXIT_HUNG)

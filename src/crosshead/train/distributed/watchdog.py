"""A process that hangs or dies ends the group within a set time, with a message that names it."""

import contextlib
import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from enum import IntEnum
from typing import Any

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from crosshead.train.distributed.groups import World
from crosshead.train.events import EXIT_HUNG


class Phase(IntEnum):
    """Where in a step a process is, in order."""

    START = 0
    DATA = 1
    FORWARD_BACKWARD = 2
    EXCHANGE = 3
    EVALUATION = 4
    EVALUATION_EXCHANGE = 5

    def __str__(self) -> str:
        return {
            Phase.START: "starting",
            Phase.DATA: "waiting for data",
            Phase.FORWARD_BACKWARD: "in the forward or backward pass",
            Phase.EXCHANGE: "waiting for the other processes",
            Phase.EVALUATION: "evaluating",
            Phase.EVALUATION_EXCHANGE: "waiting for the other processes after an evaluation",
        }[self]


Position = tuple[int, int, int]  # step, phase, part of it
_FAILED = "crosshead/failed"  # why the group ends, from whoever found out first
_LEAVING = "crosshead/leaving"  # how many know that it ends


class Watchdog:
    """Every process posts where it is; whoever has not moved for ``timeout_s`` looks who is behind.

    A process that does not even post any more is dead or frozen; else the one that is behind is at fault, since the
    others wait for it. It is named, every process that stands still prints its threads' stacks if it still can,
    ``report`` is told in rank 0, and every process exits with ``EXIT_HUNG``. In a world of one nothing is watched.
    """

    def __init__(self, world: World, timeout_s: float) -> None:
        self.world, self.timeout_s = world, timeout_s
        self._pause = min(max(timeout_s / 4, 0.1), 5.0)
        self.report: Callable[[str], None] | None = None
        self._looks = 0
        self._position: Position = (0, 0, 0)
        self._moved = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._store: dist.Store | None = None

    def __enter__(self) -> "Watchdog":
        if self.world.store is not None:
            # A connection of its own: the other one may be in a long wait.
            self._store = self.world.store.clone()
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
        self._stop.set()
        if self._store is not None:
            with contextlib.suppress(RuntimeError):  # the store went with the process that kept it
                self._store.compare_set(_FAILED, "", f"process {self.world.rank} failed: {message}")
            self._let_others_know()

    def failure(self) -> str | None:
        """What another process said before it failed; None also where the store went with it."""
        if self._store is not None:
            with contextlib.suppress(RuntimeError):
                if self._store.check([_FAILED]):
                    return self._store.get(_FAILED).decode()
        return None

    def _watch(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                self._look()
            except RuntimeError as error:  # torch's store errors derive from it
                if not self._stop.wait(2 * self._pause):
                    self._end(f"the store of the group, in process 0 or torchrun, does not answer: {error}")

    def _look(self) -> None:
        self._post()
        failure = self.failure()
        if failure is not None and not self._stop.wait(1.0):
            self._end(failure)
        still = time.monotonic() - self._moved
        if still > self.timeout_s:
            fault = self._find_fault()
            if time.monotonic() - self._moved < still:  # it went on while this thread was looking
                return
            message = (
                f"nothing has moved for {still:.0f} s (train.rank_timeout_s is {self.timeout_s:g}): {fault}"
            )
            self._checked_store.compare_set(_FAILED, "", message)
            self._end(message)

    def _post(self) -> None:
        self._looks += 1
        content = {
            "at": self._position,
            "looks": self._looks,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        self._checked_store.set(f"crosshead/at/{self.world.rank}", json.dumps(content))

    def _find_fault(self) -> str:
        """Who is behind, in words, from two looks at what everybody posts."""
        before = self._read()
        self._stop.wait(2.5 * self._pause)
        self._post()
        after = self._read()
        absent = [rank for rank, post in enumerate(after) if post is None]
        if absent:
            return f"no word from process {', '.join(map(str, absent))} since the start"
        posts = [post for post in after if post is not None]
        silent = [rank for rank, post in enumerate(posts) if post == before[rank]]
        last = min(post["at"] for post in posts)
        behind = silent or [rank for rank, post in enumerate(posts) if post["at"] == last]
        ending = ", and does not answer" if silent else ""
        return "; ".join(_describe(rank, posts[rank]) + ending for rank in behind)

    def _read(self) -> list[dict[str, Any] | None]:
        names = [f"crosshead/at/{rank}" for rank in range(self.world.size)]
        store = self._checked_store
        return [json.loads(store.get(name)) if store.check([name]) else None for name in names]

    @property
    def _checked_store(self) -> dist.Store:
        assert self._store is not None, "only watched worlds have posts"
        return self._store

    def _end(self, message: str) -> None:
        # Also where another process was the first to find out: the one at fault is the one to show its stacks.
        if time.monotonic() - self._moved > self.timeout_s / 2:
            print(f"process {self.world.rank}, where its threads are:", file=sys.stderr)
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
        print(f"process {self.world.rank} ends: {message}", file=sys.stderr, flush=True)
        get_error_handler().record_exception(RuntimeError(message))
        if self.report is not None:
            self.report(message)
        self._let_others_know()
        os._exit(EXIT_HUNG)

    def _let_others_know(self) -> None:
        """Process 0 may keep the store in which the message stands, so it leaves last, if the others leave at all."""
        deadline = time.monotonic() + 2 * self._pause
        with contextlib.suppress(RuntimeError):
            self._checked_store.add(_LEAVING, 1)
            while (
                self.world.is_rank0
                and self._checked_store.add(_LEAVING, 0) < self.world.size
                and time.monotonic() < deadline
            ):
                time.sleep(0.05)


def _describe(rank: int, post: dict[str, Any]) -> str:
    step, phase, _ = post["at"]
    return f"process {rank} (pid {post['pid']} on {post['host']}) is at step {step}, {Phase(phase)}"

"""SIGTERM, SIGINT, SIGUSR1 and SIGHUP ask a run to stop after the step at hand; a second one ends it at once."""

import contextlib
import os
import signal
import socket
import threading
import time
from types import FrameType
from typing import Any

# Slurm announces the end of a job's time with SIGUSR1 where it is asked to, and a terminal that closes sends SIGHUP.
from crosshead.data.batching.workers import STOP_SIGNALS

# A signal to a whole group reaches a process twice: by itself, and once more when torchrun passes its own on.
ONE_REQUEST_S = 1.0


class StopRequest:
    """While entered, remembers the first stop signal in ``name`` instead of dying of it.

    ``ask`` is for what stops a run and is no signal; it is remembered in ``fault``.

    A thread listens for the second one: Python's handlers wait until the main thread is back in the interpreter,
    which may be never when it waits for a process that hangs. Handlers belong to the main thread; entered from
    another one, signals keep the meaning that they had.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.fault: str | None = None
        self._heard: float | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            self._theirs = theirs
            self._wakeup_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            for number in STOP_SIGNALS:
                if number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # nohup: the run is meant to outlive its terminal
                self._before[number] = signal.signal(number, self._note)
            self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._theirs.close()
        self._thread.join()
        self._ours.close()

    def ask(self, fault: str) -> None:
        """Have the run stop as a signal would, since ``fault`` keeps it from going on."""
        self.name, self.fault = self.name or "fault", self.fault or fault

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name is None:
            self.name = signal.Signals(number).name
            with contextlib.suppress(OSError):  # the terminal may be what is gone
                os.write(2, f"\n{self.name}: stopping after this step; once more ends at once\n".encode())

    def _listen(self) -> None:
        while numbers := self._ours.recv(64):
            for number in numbers:
                if number in STOP_SIGNALS:
                    self._count(number)

    def _count(self, number: int) -> None:
        now = time.monotonic()
        if self._heard is None:
            self._heard = now
        elif now - self._heard > ONE_REQUEST_S:
            os._exit(128 + number)

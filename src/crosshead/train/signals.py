"""SIGTERM and SIGINT ask a run to stop after the step at hand; a second one ends the process at once."""

import os
import signal
import threading
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """While entered, remembers the first stop signal in ``name`` instead of dying of it.

    Handlers belong to the main thread: entered from another one it never hears a signal.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        # The system's own action, not a Python handler: it works while the interpreter waits in a library.
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        os.write(2, f"\n{self.name}: stopping after this step; once more ends at once\n".encode())

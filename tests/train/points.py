"""Faults at every point at which a run touches the disk: a file opened or flushed, a name made, moved or gone."""

import contextlib
import errno
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink"}
_act: Callable[[str, str], None] | None = None
_busy = threading.local()


def _hear(event: str, args: tuple) -> None:
    if _act is None or event not in _EVENTS or getattr(_busy, "now", False):
        return
    if event == "open" and not isinstance(args[0], str | bytes | os.PathLike):
        return
    kind = event
    if event == "open":
        kind = "write" if args[2] & (os.O_WRONLY | os.O_RDWR) else "read"
    place = args[1] if event == "os.symlink" else args[0]
    _busy.now = True
    try:
        _act(kind, os.fsdecode(place))
    finally:
        _busy.now = False


sys.addaudithook(_hear)  # for good: it does nothing while nobody listens
_fsync = os.fsync


def _flush(handle) -> None:
    number = handle if isinstance(handle, int) else handle.fileno()
    if _act is not None:
        _act("fsync", os.readlink(f"/proc/self/fd/{number}"))
    _fsync(handle)


class Points:
    """Counts the points below ``folder`` while entered, and calls ``act(number, kind, path)`` at each."""

    def __init__(
        self, folder: Path, act: Callable[[int, str, str], None] = lambda *_: None, reads: bool = False
    ):
        self.folder, self.act, self.reads = str(folder), act, reads
        self.met: list[tuple[str, str]] = []

    def _count(self, kind: str, path: str) -> None:
        # What is deleted in a folder that is open has a bare name.
        inside = path.startswith(self.folder) or (os.sep not in path and kind in ("os.remove", "os.rmdir"))
        if inside and self.reads == (kind == "read"):
            self.met.append((kind, path))
            self.act(len(self.met) - 1, kind, path)

    @contextlib.contextmanager
    def heard(self) -> Iterator["Points"]:
        global _act
        _act, os.fsync = self._count, _flush
        try:
            yield self
        finally:
            _act, os.fsync = None, _fsync


def full(kind: str, path: str) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


@contextlib.contextmanager
def room_for(folder: Path, size: int) -> Iterator[None]:
    """A disk with room for ``size`` more bytes in ``folder``: the write that would pass it is cut short, as are all
    that follow. Nothing that is deleted makes room."""
    left, original = [size], io.open

    def limited(path, mode="r", *rest, **options):
        file = original(path, mode, *rest, **options)
        if set(mode) & set("wa+x") and str(path).startswith(str(folder)):
            file = _Limited(file, left, str(path))
        return file

    import builtins

    builtins.open = io.open = limited
    try:
        yield
    finally:
        builtins.open = io.open = original


class _Limited:
    def __init__(self, file, left: list[int], path: str) -> None:
        self._file, self._left, self._path = file, left, path

    def write(self, content):
        allowed = max(min(len(content), self._left[0]), 0)
        self._left[0] -= len(content)
        written = self._file.write(content[:allowed])
        if allowed < len(content):
            self._left[0] = 0
            with contextlib.suppress(OSError):
                self._file.flush()
            raise full("write", self._path)
        return written

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self._file, name)

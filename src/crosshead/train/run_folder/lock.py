"""One run in a folder at a time, and in the folder in which it began.

A POSIX record lock on a file: the kernel frees it when its process dies, however it dies, and the loader's workers,
forked from that process, do not inherit it. And a lock on the folder itself, which holds where that file is deleted;
children give it up, in which ``flock`` would live on.
"""

import contextlib
import errno
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

from crosshead.files import read_bytes, regular

try:
    import fcntl
except ImportError:  # Windows, where all but training works
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"
_LONGEST = 1 << 16  # bytes of it that are read
_HELD: set[Path] = set()  # record locks do not exclude a second holder in the same process
_FOLDERS: set[int] = set()  # this process's open folders


def _let_go() -> None:
    for folder in _FOLDERS:
        with contextlib.suppress(OSError):
            os.close(folder)
    _FOLDERS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def check_platform() -> None:
    """Raises ValueError where this system can't keep two runs out of each other's folder, as training needs."""
    if fcntl is None:
        raise ValueError(
            "training needs Linux or macOS, for their file locks and signals; on Windows run it under WSL. Evaluation, "
            "prediction and everything on models works here"
        )


class FolderBusy(ValueError):
    """Another run is at work in the folder."""


class FolderLock:
    """Holds ``folder`` from ``acquire`` to ``release``.

    After ``acquire``, ``stale_owner`` describes a run that held the folder and died without releasing it.

    Args:
        fresh: the folder was made for this run: one in which nothing was put, because the start was refused, is
            removed by ``release``.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.path = folder.resolve() / LOCK_FILE
        self.fresh = fresh
        self.stale_owner: str | None = None
        self._file: int | None = None
        self._folder: int | None = None
        self._renewing = threading.Lock()  # the thread that writes checkpoints asks too

    def acquire(self) -> None:
        """Raises ``FolderBusy``, naming the process that holds the folder, and ValueError where nothing can be held."""
        check_platform()
        if self.path in _HELD:
            raise FolderBusy(f"{self.path.parent}: this process is already running in this folder")
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            _lock_folder(folder, fcntl.LOCK_EX)
            self._take_file()
        except BaseException as error:
            os.close(folder)
            if not isinstance(error, BlockingIOError):
                raise
            owner = _owner(self.path)
            raise FolderBusy(
                f"{self.path.parent} is in use by {owner}; wait for it, stop it, or choose another folder"
            ) from error
        self._folder = folder
        _FOLDERS.add(folder)
        _HELD.add(self.path)

    def _take_file(self) -> None:
        file = regular(str(self.path), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise
        self.stale_owner = describe_owner(os.pread(file, _LONGEST, 0))
        os.ftruncate(file, 0)
        own = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": time.time(),
            "command": sys.argv,
        }
        os.pwrite(file, json.dumps(own).encode(), 0)
        self._file = file

    def release(self) -> None:
        if self._file is None or self._folder is None:
            return
        os.ftruncate(self._file, 0)
        if self.fresh:
            self._remove_if_empty()
        os.close(self._file)
        os.close(self._folder)
        _FOLDERS.discard(self._folder)
        self._file = self._folder = None
        _HELD.discard(self.path)

    def _remove_if_empty(self) -> None:
        """While the lock is held: who opens the file before finds it locked, and who does later makes it anew."""
        try:
            if os.listdir(self.path.parent) == [LOCK_FILE]:
                self.path.unlink()
                self.path.parent.rmdir()
        except OSError:  # somebody put something there
            return

    def lost(self) -> str | None:
        """What became of the held folder, in words, where it is not in its place any more or another run has it.

        A lock file that was deleted is made again.
        """
        if self._folder is None or self._file is None:
            return None
        folder = self.path.parent
        try:
            with self._renewing:
                if _is(folder, self._folder):
                    if not _is(self.path, before := self._file):
                        self._take_file()
                        os.close(before)
                    return None
        except BlockingIOError:
            owner = _owner(self.path)
            return f"the lock of {folder} was deleted and {owner} has taken the folder"
        except OSError:  # a disk has a bad moment, or is full
            return None
        moved = self.moved_to()
        return f"the run's folder {folder} was {'removed' if moved is None else f'renamed to {moved}'} while it ran"

    def moved_to(self) -> Path | None:
        """Where the held folder is now, if it was renamed and the system can tell."""
        with contextlib.suppress(OSError):
            if self._folder is None or _is(self.path.parent, self._folder):
                return None
            now = Path(os.readlink(f"/proc/self/fd/{self._folder}"))
            return now if _is(now, self._folder) else None
        return None


def is_held(folder: Path) -> str | None:
    """The process that holds ``folder``, described; None where nobody does. Changes nothing."""
    path = folder.resolve() / LOCK_FILE
    if path in _HELD:
        return f"process {os.getpid()} (this one)"
    if fcntl is None or not path.parent.is_dir():
        return None
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        _lock_folder(handle, fcntl.LOCK_SH)  # which a reader may ask for, on a read-only disk too
        if path.exists():
            with open(path, "rb", opener=regular) as file:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(path)
    finally:
        os.close(handle)
    return None


def describe_owner(content: bytes) -> str | None:
    """ "process 123 on host (crosshead train digits), since ..." from the lock file's content."""
    try:
        owner = json.loads(content)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner["started"]))
        return f"process {owner['pid']} on {owner['host']} ({' '.join(owner['command'])}) since {since}"
    except (ValueError, KeyError, TypeError):
        return None


def _owner(path: Path) -> str:
    """Who holds a folder, from its lock file: a moment after it was taken, it is not yet written there."""
    for pause in (0, 0.05, 0.1, 0.2):
        time.sleep(pause)
        with contextlib.suppress(OSError):
            if owner := describe_owner(read_bytes(path, most=_LONGEST)):
                return owner
    return "an unnamed process"


def _lock_folder(folder: int, kind: int) -> None:
    """Raises BlockingIOError where another process holds it. Some network file systems lock files alone."""
    try:
        fcntl.flock(folder, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            raise


def _is(path: Path, handle: int) -> bool:
    """Whether ``path`` is what is open as ``handle``. Raises OSError where that can't be found out now."""
    try:
        there = os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            return False
        raise
    return os.path.samestat(there, os.fstat(handle))

"""One run in a folder at a time.

A POSIX record lock: the kernel frees it when its process dies, however it dies, and the loader's workers, forked
from that process, do not inherit it (``flock``, which filelock uses, would live on in them).
"""

import fcntl
import json
import os
import socket
import sys
import time
from pathlib import Path

LOCK_FILE = ".lock"
_HELD: set[Path] = set()  # record locks do not exclude a second holder in the same process


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

    def acquire(self) -> None:
        """Raises ``FolderBusy``, naming the process that holds the folder."""
        if self.path in _HELD:
            raise FolderBusy(f"{self.path.parent}: this process is already running in this folder")
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = describe_owner(_read(file)) or "an unnamed process"
            os.close(file)
            raise FolderBusy(
                f"{self.path.parent} is in use by {owner}; wait for it, stop it, or choose another folder"
            ) from error
        self.stale_owner = describe_owner(_read(file))
        os.ftruncate(file, 0)
        own = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": time.time(),
            "command": sys.argv,
        }
        os.pwrite(file, json.dumps(own).encode(), 0)
        self._file = file
        _HELD.add(self.path)

    def release(self) -> None:
        if self._file is None:
            return
        os.ftruncate(self._file, 0)
        if self.fresh:
            self._remove_if_empty()
        os.close(self._file)
        self._file = None
        _HELD.discard(self.path)

    def _remove_if_empty(self) -> None:
        """While the lock is held: who opens the file before finds it locked, and who does later makes it anew."""
        try:
            if os.listdir(self.path.parent) == [LOCK_FILE]:
                self.path.unlink()
                self.path.parent.rmdir()
        except OSError:  # somebody put something there
            return


def is_held(folder: Path) -> str | None:
    """The process that holds ``folder``, described; None where nobody does. Changes nothing."""
    path = folder.resolve() / LOCK_FILE
    if path in _HELD:
        return f"process {os.getpid()} (this one)"
    if not path.exists():
        return None
    with open(path, "rb") as file:
        try:
            fcntl.lockf(
                file, fcntl.LOCK_SH | fcntl.LOCK_NB
            )  # which a reader may ask for, on a read-only disk too
        except BlockingIOError:
            return describe_owner(file.read()) or "an unnamed process"
    return None


def describe_owner(content: bytes) -> str | None:
    """ "process 123 on host (crosshead train digits), since ..." from the lock file's content."""
    try:
        owner = json.loads(content)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner["started"]))
        return f"process {owner['pid']} on {owner['host']} ({' '.join(owner['command'])}) since {since}"
    except (ValueError, KeyError, TypeError):
        return None


def _read(file: int) -> bytes:
    return os.pread(file, 65536, 0)

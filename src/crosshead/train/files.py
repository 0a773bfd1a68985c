"""Files that are known to be whole: written aside, flushed to disk, and checked against a SHA-256."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable
from io import BufferedReader
from pathlib import Path

from crosshead.files import read_json, regular
from crosshead.formats import numbered, read_numbered

MANIFEST = "manifest.json"
Wanted = Callable[[Collection[str]], Iterable[str]]  # of the files that are there, those that will be read


class Damaged(Exception):
    """A folder is not what its manifest says. The message says how."""


def write_file(path: Path, content: bytes) -> str:
    """Write and flush to disk; returns the SHA-256 of ``content``."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def replace_file(path: Path, content: bytes) -> None:
    """Put ``content`` in the place of ``path`` so that at every moment the old or the new one is there, whole."""
    aside = path.with_name(f".{path.name}.tmp")
    write_file(aside, content)
    os.replace(aside, path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_manifest(folder: Path, digests: dict[str, str]) -> None:
    """List ``folder``'s files with their digests; the list carries its own."""
    files = {
        name: {"sha256": digest, "bytes": (folder / name).stat().st_size}
        for name, digest in sorted(digests.items())
    }
    listed = numbered({"files": files})
    text = json.dumps({**listed, "sha256": _digest_of(listed)}, indent=2)
    write_file(folder / MANIFEST, text.encode())


def listed_in(folder: Path) -> dict[str, tuple[str, int]]:
    """The files that ``folder`` should have: name -> (SHA-256, bytes).

    Raises:
        Damaged: the manifest is missing, unreadable or changed.
        NewerFormat: a later version wrote it.
    """
    try:
        manifest = read_json(folder / MANIFEST)
        digest = manifest.pop("sha256")
        # Format 1 has the digest of its list alone.
        whole = digest == _digest_of(manifest["files"] if manifest["format"] == 1 else manifest)
    except NotADirectoryError:
        raise Damaged("a plain file, and no folder") from None
    except FileNotFoundError:
        raise Damaged(f"{MANIFEST} is missing") from None
    except OSError as error:
        raise Damaged(f"{MANIFEST} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Damaged(f"{MANIFEST} is not readable") from None
    if not whole:
        raise Damaged(f"{MANIFEST} was changed")
    files = read_numbered(manifest, folder / MANIFEST)["files"]
    try:
        listed = {name: (entry["sha256"], entry["bytes"]) for name, entry in files.items()}
    except (KeyError, TypeError, AttributeError):
        raise Damaged(f"{MANIFEST} is not readable") from None
    if outside := [name for name in listed if not _is_plain(name)]:
        raise Damaged(f"{MANIFEST} names {outside[0]!r}, which is not in the folder")
    return listed


def verify(folder: Path, wanted: Wanted | None = None) -> None:
    """Read the files of ``folder``, every one or those that are ``wanted`` of the names listed, and compare them with
    the manifest.

    Raises:
        Damaged: the manifest is missing or unreadable, or a file is missing, cut short or changed.
    """
    listed = listed_in(folder)
    for name in listed if wanted is None else wanted(listed):
        if name not in listed:
            raise Damaged(f"{name} is not in {MANIFEST}")
        digest, size = listed[name]
        try:
            with open(folder / name, "rb", opener=regular) as file:
                found_size = os.fstat(file.fileno()).st_size
                if found_size != size:
                    raise Damaged(f"{name} has {found_size} bytes, not {size}")
                if digest_of(file) != digest:
                    raise Damaged(f"{name} has other content than was written (SHA-256 differs)")
        except FileNotFoundError:
            raise Damaged(f"{name} is missing") from None
        except OSError as error:
            raise Damaged(f"{name} cannot be read: {error.strerror}") from None


def _is_plain(name: str) -> bool:
    """Whether ``name`` is of a file in a folder, and leads nowhere else."""
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def digest_of(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(files: object) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()

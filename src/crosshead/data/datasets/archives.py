"""Pictures inside archives, read in place: nothing is unpacked, and nothing is read but the archives."""

import os
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosshead.data.base import ImageSet
from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import BrokenImage, decode_image, display_name
from crosshead.data.random import Indices

LARGEST = 1 << 28  # bytes of one encoded picture

# archive: its number; offset: where the member (zip: its header) begins; size: as it is, packed: as it is stored
ENTRY = np.dtype(
    [("archive", "i4"), ("method", "i4"), ("offset", "i8"), ("size", "i8"), ("packed", "i8"), ("crc", "u4")]
)
Entries = NDArray[np.void]
Reader = Callable[[str, np.void], bytes]


class ArchivedImages(ImageSet):
    """Members of ``archives`` by their ``entries`` (N,) of ``ENTRY``; ``read`` gets one's bytes.

    An archive is opened for each picture and closed again, so that worker processes share no open file.
    """

    stored = True

    def __init__(
        self,
        archives: Sequence[Path | str],
        entries: Entries,
        names: Sequence[str],
        targets: Sequence[int],
        read: Reader,
        decoding: Decoding,
    ) -> None:
        assert len(entries) == len(names) == len(targets)
        self.archives = [str(archive) for archive in archives]
        self.entries, self.names, self.read, self.decoding = entries, list(names), read, decoding
        self.targets = list(targets)

    def __len__(self) -> int:
        return len(self.names)

    def load(self, i: int) -> Image.Image:
        return decode_image(self.source(i), name=self.name(i), decoding=self.decoding)

    def encoded(self, i: int) -> tuple[bytes, ...]:
        return (self.source(i),)

    def source(self, i: int) -> bytes:
        entry = self.entries[i]
        if entry["size"] > LARGEST or entry["packed"] > LARGEST:
            raise BrokenImage(self.name(i), f"{entry['size']} bytes are above the limit of {LARGEST}")
        try:
            return self.read(self.archives[entry["archive"]], entry)
        except (OSError, EOFError, ValueError) as error:
            raise BrokenImage(self.name(i), f"can't be read from its archive: {error}") from None

    def name(self, i: int) -> str:
        return f"{display_name(self.archives[self.entries[i]['archive']])}@{display_name(self.names[i])}"

    def subset(self, indices: Indices) -> Self:
        part = copy(self)
        part.names, part.targets = [self.names[i] for i in indices], [self.targets[i] for i in indices]
        part.entries = self.entries[indices]
        return part


def read_exactly(descriptor: int, offset: int, size: int) -> bytes:
    """``size`` bytes from ``offset``. EOFError where the file ends before."""
    body = os.pread(descriptor, size, offset)
    if len(body) != size:
        raise EOFError(f"{len(body)} of {size} bytes are there")
    return body


def leaves_archive(name: str) -> bool:
    """Whether a member's path leads out of its archive, on any operating system."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or (bool(path.parts) and path.parts[0].endswith(":"))


def check_member(archive: Path, name: str) -> None:
    """ValueError for a member whose path would leave the archive."""
    if leaves_archive(name):
        raise ValueError(
            f"{display_name(archive)}: the path {display_name(name)!r} in it leaves the archive; "
            "it may be hostile: get the archive from its source again"
        )

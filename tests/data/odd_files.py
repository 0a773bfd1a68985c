"""Writers of small data for the tests: ordinary pictures, and odd and hostile ones."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int = 0, height: int = 12, width: int = 16) -> Image.Image:
    """A small RGB picture, smooth enough to survive JPEG."""
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    return Image.fromarray((ramp + np.array([0, 7, 15]) * (seed % 2)).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def write_class_folders(root: Path, classes: dict[str, int], kind: str = "png") -> None:
    """``root/CLASS/0.png`` and so on: so many pictures of each class."""
    for number, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture(number + i).save(root / name / f"{i}.{kind}")


def png_announcing(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")

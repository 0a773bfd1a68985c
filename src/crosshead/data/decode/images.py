"""From a file's bytes to a picture, trusting nothing: a list of formats, a pixel limit, one kind of error."""

import os
import stat
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from crosshead.text import printable

T = TypeVar("T")

# An explicit list keeps Pillow's rarer decoders, where its vulnerabilities gather, out of reach.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", *(("AVIF",) if features.check("avif") else ()))
SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
# Formats that keep every value as it is.
_EXACT = ("PNG", "BMP", "GIF", "TIFF", "PPM")
# Pictures all the same, which nothing here reads.
_UNREAD = {
    **dict.fromkeys(
        (".heic", ".heif"), "HEIC, which needs a decoder that is not here: convert it to JPEG or PNG"
    ),
    **dict.fromkeys(
        (".jxl", ".jp2", ".j2k"), "JPEG XL or 2000, which is not read: convert it to JPEG or PNG"
    ),
    **dict.fromkeys((".svg", ".pdf", ".eps"), "made of lines, not of pixels: render it as PNG"),
    **dict.fromkeys(
        (".raw", ".cr2", ".nef", ".arw", ".dng", ".psd"), "a camera's or an editor's own: export it as JPEG"
    ),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), "a video"),
}

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BrokenImage(ValueError):
    """A picture that can't be used; ``name`` says which (its path, for files), ``reason`` why."""

    def __init__(self, name: str, reason: str, remedy: str = "") -> None:
        super().__init__(f"{name}: {reason}" + (f"; {remedy}" if remedy else ""))
        self.name, self.reason, self.remedy = name, reason, remedy

    def __reduce__(self) -> tuple[type["BrokenImage"], tuple[str, str, str]]:
        return BrokenImage, (self.name, self.reason, self.remedy)


def display_name(path: str | os.PathLike[str]) -> str:
    """A path as printable text in one line: bytes that are no UTF-8 come out as ``\\xNN``."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def why_passed_over(name: str) -> str:
    """Why a file that lies among pictures is not one that is read."""
    return _UNREAD.get(os.path.splitext(name)[1].lower(), "no suffix of a picture")


def decode_image(
    source: str | os.PathLike[str] | bytes, *, name: str | None = None, max_megapixels: float = 64.0
) -> Image.Image:
    """An upright 8-bit picture of mode ``L`` (grey) or ``RGB``.

    Sixteen-bit pictures are scaled, not clipped; transparency is laid on white; of an animation the first
    frame is taken; the EXIF rotation is applied. The header's size is checked against ``max_megapixels``
    (10⁶ pixels) before anything is decoded; above 179 stands Pillow's own limit.

    Raises:
        BrokenImage: whatever is wrong with the picture; no other exception leaves.
    """
    label = name if name is not None else ("picture" if isinstance(source, bytes) else display_name(source))
    return _decoded(source, label, max_megapixels, lambda i: _turned(_eight_bit(i), _orientation(i)))


def decode_map(
    source: str | os.PathLike[str] | bytes, *, name: str | None = None, max_megapixels: float = 64.0
) -> NDArray[np.uint8]:
    """The class numbers of a map, (height, width): the values of a grey picture, or the indices of one with a palette.

    Raises:
        BrokenImage: the picture can't be read, has colours and so no class numbers, or one above 255.
    """
    label = name if name is not None else ("map" if isinstance(source, bytes) else display_name(source))
    return _decoded(source, label, max_megapixels, _class_numbers)


def _class_numbers(image: Image.Image) -> NDArray[np.uint8]:
    if image.format not in _EXACT:
        raise _Refused(f"{image.format} does not keep class numbers as they are: save the map as PNG")
    if image.mode in ("L", "P", "1"):
        return np.array(image, dtype=np.uint8)
    if not image.mode.startswith("I"):
        raise _Refused(
            f"a map has one channel of class numbers, and this one is a picture of mode {image.mode}: save class "
            "numbers as grey values or palette indices"
        )
    wide = np.asarray(image)
    if wide.min() < 0 or wide.max() > 255:
        raise _Refused(f"class numbers from {wide.min()} to {wide.max()}: wanted 0 to 255")
    return wide.astype(np.uint8)


def _decoded(
    source: str | os.PathLike[str] | bytes,
    label: str,
    max_megapixels: float,
    convert: Callable[[Image.Image], T],
) -> T:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on size and EXIF: judged below
        try:
            with Image.open(_opened(source), formats=FORMATS) as image:
                _check_size(*image.size, max_megapixels)
                image.load()
                return convert(image)
        except _Refused as error:
            raise BrokenImage(label, str(error)) from None
        except Image.DecompressionBombError as error:
            raise BrokenImage(label, f"refused before decoding: {_one_line(error)}") from None
        except UnidentifiedImageError:
            reason = f"not a picture in a known format ({', '.join(FORMATS)}), or cut off in its header"
            raise BrokenImage(label, reason) from None
        except Exception as error:  # decoders fail with every kind of exception on hostile bytes
            raise BrokenImage(label, f"can't be decoded: {_one_line(error)}") from None


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a picture's file, undecoded. Raises ``BrokenImage`` where there are none."""
    try:
        opened = _opened(path)
        assert isinstance(opened, Path)
        return opened.read_bytes()
    except (_Refused, OSError) as error:
        raise BrokenImage(display_name(path), _one_line(error)) from None


class _Refused(Exception):
    """A reason of our own not to decode."""


def _opened(source: str | os.PathLike[str] | bytes) -> Path | BytesIO:
    if isinstance(source, bytes):
        if not source:
            raise _Refused("empty (zero bytes)")
        return BytesIO(source)
    found = os.stat(source)
    if not stat.S_ISREG(found.st_mode):  # reading a pipe or a device would never end
        raise _Refused("not a regular file")
    if found.st_size == 0:
        raise _Refused("empty (zero bytes)")
    return Path(source)


def _check_size(width: int, height: int, max_megapixels: float) -> None:
    if width * height > round(max_megapixels * 1e6):
        raise _Refused(
            f"{width} x {height} pixels are above the limit of {max_megapixels:g} megapixels "
            "(data.max_megapixels); it was not decoded"
        )


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _scaled_to_eight_bit(image)
    if image.mode == "F":
        raise _Refused("floating-point pixels have no fixed range: convert it to 8 or 16 bits")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("L" if image.mode in ("L", "1") else "RGB")


def _scaled_to_eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits to 8; Pillow's own ``convert`` clips instead."""
    wide = np.asarray(image).astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise _Refused("32-bit pixels outside 0 ... 65535 have no fixed range: convert it to 8 or 16 bits")
    return Image.fromarray(((wide + 128) // 257).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block tells no rotation, and the picture itself was decoded
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__

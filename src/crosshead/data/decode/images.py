"""From a file's bytes to a picture, trusting nothing: a list of formats, a pixel limit, one kind of error."""

import os
import stat
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from crosshead.data.decode.decoding import LEVELS, Bands, Decoding, scaled_to_range, scaled_to_white
from crosshead.files import printable

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
_SAMPLES, _EXTRA_SAMPLES = 277, 338  # TIFF's
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how its files begin, large ones too
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_USUAL = Decoding()
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
    source: str | os.PathLike[str] | bytes, *, name: str | None = None, decoding: Decoding = _USUAL
) -> Image.Image:
    """An 8-bit picture of mode ``L`` (grey) or ``RGB``, or ``Bands`` where other channels are wanted.

    Of 16 bits ``decoding.white_level`` becomes white; transparency is laid on white, unless it is to be a channel;
    of an animation the first frame is taken; the EXIF rotation is applied or ignored. The header's size is checked
    against ``max_megapixels`` (10⁶ pixels) before anything is decoded; above 179 stands Pillow's own limit.
    ``info`` has the "orientation" that EXIF names and, of 16 bits, the "highest" value.

    Raises:
        BrokenImage: whatever is wrong with the picture; no other exception leaves.
    """
    return _decoded(
        source, _label(source, name), decoding.max_megapixels, lambda i: _converted(i, source, decoding)
    )


@dataclass(frozen=True)
class Inspected:
    """``highest`` value of a 16-bit picture, else None; EXIF's ``orientation``; whether it is a TIFF whose fourth
    channel is tagged as transparency."""

    highest: int | None
    orientation: int
    tagged_alpha: bool


def inspect_image(
    source: str | os.PathLike[str] | bytes, *, name: str | None = None, decoding: Decoding = _USUAL
) -> Inspected:
    """What a picture's header says, and the pixels where it has 16 bits. Raises ``BrokenImage``."""

    as_bands = decoding.channels not in (1, 3)

    def inspected(image: Image.Image) -> Inspected:
        alpha = image.format == "TIFF" and image.mode == "RGBA"
        highest = None
        if _is_wide(image):
            values = _colours(_wide_values(image, source, keep_all=as_bands), as_bands)
            highest = int(values.max()) if values.min() >= 0 and values.max() <= LEVELS[-1] else None
        return Inspected(highest, _orientation(image), alpha)

    return _decoded(source, _label(source, name), decoding.max_megapixels, inspected)


def exif_hint(picture: Image.Image, wanted: tuple[int, int]) -> str:
    """What to say where annotations are for (width, height) ``wanted``, if the EXIF rotation is why a picture has
    another size."""
    if picture.info.get("orientation", 1) < 5 or wanted != picture.size[::-1]:
        return ""
    return (
        "; EXIF turns this picture by a quarter, and the annotations are for the other way up: "
        "data.exif=ignore takes the pixels as they are stored, data.exif=apply as people see them"
    )


def _label(source: str | os.PathLike[str] | bytes, name: str | None) -> str:
    return name if name is not None else ("picture" if isinstance(source, bytes) else display_name(source))


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
    image.load()
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
        raise _Refused(f"class numbers from {wide.min()} to {wide.max()}: expected 0 to 255")
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
                return convert(image)
        except _Refused as error:
            raise BrokenImage(label, str(error)) from None
        except Image.DecompressionBombError as error:
            raise BrokenImage(label, f"refused before decoding: {_one_line(error)}") from None
        except UnidentifiedImageError:
            raise BrokenImage(label, _unknown(source)) from None
        except Exception as error:  # decoders fail with every kind of exception on hostile bytes
            raise BrokenImage(label, f"can't be decoded: {_one_line(error)}") from None


def _unknown(source: str | os.PathLike[str] | bytes) -> str:
    """Why Pillow knows no such picture."""
    if isinstance(source, bytes):
        head = source[:4]
    else:
        with open(source, "rb") as file:
            head = file.read(4)
    if head in _TIFF:
        return (
            "a TIFF of a kind that is not read, or cut off in its header: those are with one to four channels of 8 or "
            "16 bits, or one of 32 or of floating-point numbers; write it as one of them, or as several pictures"
        )
    return f"not a picture in a known format ({', '.join(FORMATS)}), or cut off in its header"


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
    if width * height > max_megapixels * 1e6 + 0.5:  # which may be infinite
        raise _Refused(
            f"{width} x {height} pixels are above the limit of {max_megapixels:g} megapixels "
            "(data.max_megapixels); it was not decoded"
        )


def _converted(image: Image.Image, source: str | os.PathLike[str] | bytes, decoding: Decoding) -> Image.Image:
    picture, highest = _eight_bit(image, source, decoding)
    orientation = _orientation(image)
    if decoding.exif == "apply":
        picture = _turned(picture, orientation)
    picture.info = {"orientation": orientation}
    if highest is not None:
        picture.info["highest"] = highest
    return picture


def _eight_bit(
    image: Image.Image, source: str | os.PathLike[str] | bytes, decoding: Decoding
) -> tuple[Image.Image, int | None]:
    """The picture, not yet turned, and the largest of its values where it has 16 bits."""
    as_bands = decoding.channels not in (1, 3)
    if not as_bands:
        _refuse_unnamed_bands(image)
    if _is_wide(image):
        values = _wide_values(image, source, keep_all=as_bands)
        pixels, highest = _scaled(_colours(values, as_bands), decoding)
        if not as_bands and values.ndim == 3 and values.shape[-1] in (2, 4):
            pixels = np.concatenate([pixels, scaled_to_white(values[..., -1:], LEVELS[-1])], -1)
            pixels = pixels if pixels.shape[-1] == 4 else pixels[..., [0, 0, 0, 1]]
    elif as_bands:
        pixels, highest = _all_bands(image), None
    else:
        image.load()
        return _in_colour(image), None
    if not as_bands:
        return _in_colour(Image.fromarray(pixels)), highest
    count = 1 if pixels.ndim == 2 else pixels.shape[-1]
    if count != decoding.channels:
        raise _Refused(f"{count} channel{'s' * (count > 1)}, and data.channels is {decoding.channels}")
    return Bands(pixels.reshape(*pixels.shape[:2], count)), highest


def _in_colour(image: Image.Image) -> Image.Image:
    """Mode ``L`` or ``RGB``, transparency laid on white."""
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("L" if image.mode in ("L", "1") else "RGB")


def _refuse_unnamed_bands(image: Image.Image) -> None:
    """Pillow drops what a TIFF has beside its colours and doesn't call transparency."""
    tags = getattr(image, "tag_v2", {})
    extra = tags.get(_EXTRA_SAMPLES, ())
    if 0 in (extra if isinstance(extra, tuple) else (extra,)):
        count = tags.get(_SAMPLES, 1)
        raise _Refused(
            f"{count} channels, and what is beside the colours is no transparency: data.channels={count} learns from "
            "all of them, or convert the picture"
        )


def _all_bands(image: Image.Image) -> NDArray[np.uint8]:
    """(height, width) or (height, width, C) of what the file holds; a palette's colours."""
    _keep_all_bands(image)
    image.load()
    if image.mode == "CMYK":
        raise _Refused("inks (CMYK) in place of channels: convert the picture")
    return np.array(image.convert("RGB") if image.mode in ("P", "1") else image)


def _is_wide(image: Image.Image) -> bool:
    """Whether a value has more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F" or any(";16" in mode for mode in _raw_modes(image))


def _wide_values(
    image: Image.Image, source: str | os.PathLike[str] | bytes, *, keep_all: bool
) -> NDArray[Any]:
    """(height, width), or (height, width, C) of 16 bits, of which Pillow keeps the upper eight: the lower ones come
    from decoding once more with the bytes of each value the other way round."""
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image)
    if _raw_modes(image) == ["LA;16B"]:  # four bytes, which Pillow can only read in this order
        image._mode = "RGBA"
        _set_raw_modes(image, lambda mode: "RGBA")
        split = np.asarray(image).astype(np.uint16)
        return split[..., 0::2] << 8 | split[..., 1::2]
    halves = []
    with Image.open(_opened(source), formats=FORMATS) as other:
        for each, swapped in ((image, False), (other, True)):
            if keep_all:
                _keep_all_bands(each)
            if swapped:
                _set_raw_modes(each, lambda mode: mode[:-1] + _OTHER_ORDER[mode[-1]])
            halves.append(np.asarray(each).astype(np.uint16))
    return halves[0] << 8 | halves[1]


def _colours(values: NDArray[Any], as_bands: bool) -> NDArray[Any]:
    """Without transparency, unless it is expected as a channel."""
    return values if as_bands or values.ndim == 2 or values.shape[-1] == 3 else values[..., :-1]


def _raw_modes(image: Image.Image) -> list[str]:
    """How Pillow is going to read the pixels: "RGB;16B" for example."""
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    return [str(each[0] if isinstance(each, tuple) else each) for each in arguments]


def _set_raw_modes(image: Image.Image, change: Callable[[str], str]) -> None:
    tiles: Any = image.tile  # type: ignore[attr-defined]  # of a picture out of a file
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=(change(a[0]), *a[1:]) if isinstance(a := tile.args, tuple) else change(a))
        for tile in tiles
    ]


def _keep_all_bands(image: Image.Image) -> None:
    """Has Pillow read a fourth band as it is, where it would drop it, or divide the colours by it."""
    if any(mode.startswith("RGBX") and not mode.startswith("RGBXX") for mode in _raw_modes(image)):
        image._mode = "RGBX"  # before this Pillow has read nothing but the header
    _set_raw_modes(image, lambda mode: mode.replace("RGBa", "RGBA"))


def _scaled(values: NDArray[Any], decoding: Decoding) -> tuple[NDArray[np.uint8], int | None]:
    floating = np.issubdtype(values.dtype, np.floating)
    if floating or values.min() < 0 or values.max() > LEVELS[-1]:
        if not np.isfinite(values).all():
            raise _Refused("pixels that are not finite")
        if decoding.value_range is None:
            kind = "floating-point pixels" if floating else f"32-bit pixels outside 0 ... {LEVELS[-1]}"
            raise _Refused(
                f"{kind} (here {values.min():g} to {values.max():g}) have no fixed range: state what is black and what "
                "is white with data.value_range=[LOW,HIGH], or convert the picture to 8 or 16 bits"
            )
        return scaled_to_range(values, decoding.value_range), None
    if values.dtype != np.uint16 and decoding.value_range is not None:  # 32 bits that happen to be few
        return scaled_to_range(values, decoding.value_range), None
    return scaled_to_white(values, decoding.white), int(values.max())


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block tells no rotation, and the picture itself was decoded
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    if orientation not in _UPRIGHT:
        return image
    if isinstance(image, Bands):
        turned = [
            Image.fromarray(band).transpose(_UPRIGHT[orientation]) for band in np.moveaxis(image.bands, -1, 0)
        ]
        return Bands(np.stack([np.asarray(band) for band in turned], -1))
    return image.transpose(_UPRIGHT[orientation])


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__

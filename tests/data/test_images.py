"""Every kind of odd picture comes out right, every kind of broken one comes out named."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from odd_files import encoded, picture, png_announcing
from PIL import Image

from crosshead.data.decode.decoding import Decoding
from crosshead.data.decode.images import BrokenImage, decode_image, display_name

WHOLE = {
    "jpeg": encoded(picture(), "JPEG"),
    "png": encoded(picture(), "PNG"),
    "webp": encoded(picture(), "WEBP", lossless=True),
    "bmp": encoded(picture(), "BMP"),
    "tiff": encoded(picture(), "TIFF"),
    "ppm": encoded(picture(), "PPM"),
    "gif": encoded(picture(), "GIF"),
}


def pixels(source: bytes) -> np.ndarray:
    return np.asarray(decode_image(source)).astype(int)


@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_ordinary_formats_decode_to_their_pixels(kind: str) -> None:
    slack = {"jpeg": 12, "gif": 12}.get(kind, 0)
    assert np.abs(pixels(WHOLE[kind]) - np.asarray(picture()).astype(int)).max() <= slack


def test_cmyk_becomes_rgb_of_the_same_colours() -> None:
    got = pixels(encoded(picture().convert("CMYK"), "JPEG", quality=95))
    assert got.shape == (12, 16, 3)
    assert np.abs(got - np.asarray(picture()).astype(int)).max() <= 16


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    wide = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    assert pixels(encoded(Image.fromarray(wide), kind)).tolist() == [[0, 1, 128, 255]]


def test_thirty_two_bits_and_floats_are_refused() -> None:
    huge = Image.fromarray(np.array([[0, 70000]], dtype=np.int32))
    with pytest.raises(BrokenImage, match="32-bit pixels outside"):
        decode_image(encoded(huge, "TIFF"))
    with pytest.raises(BrokenImage, match="floating-point"):
        decode_image(encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))


def test_transparent_palette_entries_show_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, "PNG", transparency=0)).tolist() == [[[255, 255, 255], [0, 0, 255]]]
    assert pixels(encoded(image, "PNG", transparency=b"\x80\xff"))[0, 0].tolist() == [255, 127, 127]


def test_alpha_is_laid_on_white() -> None:
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert pixels(encoded(half, "PNG")).tolist() == [[[127, 127, 127]]]
    grey = Image.new("LA", (1, 1), (0, 0))
    assert pixels(encoded(grey, "PNG")).tolist() == [[[255, 255, 255]]]


def test_bilevel_becomes_grey() -> None:
    image = decode_image(encoded(Image.new("1", (3, 2), 1), "PNG"))
    assert image.mode == "L" and np.asarray(image).min() == 255


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    moving = encoded(first, kind, save_all=True, append_images=[second], duration=50, **_lossless(kind))
    assert (
        pixels(moving)[0, 0].tolist() == [255, 0, 0] or np.abs(pixels(moving)[0, 0] - [255, 0, 0]).max() <= 3
    )


def _lossless(kind: str) -> dict[str, bool]:
    return {"lossless": True} if kind == "WEBP" else {}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_rotation_is_applied(orientation: int, kind: str) -> None:
    upright = np.arange(24, dtype=np.uint8).reshape(4, 6)
    # What a camera stores, so that the rotation named in EXIF brings it upright.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif)
    assert pixels(source).tolist() == upright.tolist()


def test_sixteen_bit_picture_is_turned_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.fromarray(np.zeros((4, 6), dtype=np.uint16))
    assert decode_image(encoded(wide, "PNG", exif=exif)).size == (4, 6)


def test_damaged_exif_does_not_hide_the_picture() -> None:
    source = encoded(picture(), "JPEG", exif=b"Exif\x00\x00garbage that is no TIFF")
    assert pixels(source).shape == (12, 16, 3)


BROKEN = {
    "empty": (b"", "empty"),
    "text": (b"hello, I am a jpeg\n" * 20, "not a picture in a known format"),
    "truncated jpeg": (WHOLE["jpeg"][:-200], "can't be decoded"),
    "truncated png": (WHOLE["png"][: len(WHOLE["png"]) // 2], "can't be decoded"),
    "header only": (WHOLE["png"][:33], "cut off in its header"),
    "flipped byte in a png": (WHOLE["png"][:60] + b"\xff" + WHOLE["png"][61:], "can't be decoded"),
    "gigantic header": (png_announcing(100_000, 100_000), "refused before decoding"),
    "large header": (png_announcing(9000, 9000), "9000 x 9000 pixels are above the limit of 64"),
    "larger than its data": (png_announcing(4000, 4000), "can't be decoded"),
    "pdf": (b"%PDF-1.7\n" + b"0" * 100, "not a picture"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    "icon, not on the list": (encoded(picture(), "ICO"), "not a picture"),
    "html": (b"<html>404 not found</html>", "not a picture"),
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_broken_files_are_named_with_the_reason(kind: str, tmp_path: Path) -> None:
    body, reason = BROKEN[kind]
    file = tmp_path / "cat.jpg"
    file.write_bytes(body)
    with pytest.raises(BrokenImage) as caught:
        decode_image(file)
    assert caught.value.name == str(file) and reason in caught.value.reason
    assert "\n" not in str(caught.value)
    with pytest.raises(BrokenImage, match="cat in memory"):
        decode_image(body, name="cat in memory")


def test_every_cut_and_many_flips_of_a_picture_end_in_a_picture_or_a_broken_image() -> None:
    rng = np.random.default_rng(0)
    for body in WHOLE.values():
        for _ in range(40):
            damaged = bytearray(body[: rng.integers(1, len(body) + 1)])
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
            try:
                assert decode_image(bytes(damaged)).mode in ("L", "RGB")
            except BrokenImage as broken:
                assert broken.reason


def test_the_pixel_limit_is_the_callers() -> None:
    body = encoded(Image.new("RGB", (1001, 1000)), "PNG")
    assert decode_image(body, decoding=Decoding(1.001)).size == (1001, 1000)
    with pytest.raises(BrokenImage, match="limit of 1 megapixels"):
        decode_image(body, decoding=Decoding(1.0))


def test_pipes_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BrokenImage, match="not a regular file"):
        decode_image(tmp_path / "pipe.png")
    with pytest.raises(BrokenImage, match="not a regular file"):
        decode_image(tmp_path)
    with pytest.raises(BrokenImage, match="No such file"):
        decode_image(tmp_path / "gone.png")


def test_a_name_that_is_no_utf8_is_printable(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(path, "wb") as file:
        file.write(WHOLE["png"])
    assert decode_image(os.fsdecode(path)).size == (16, 12)
    assert display_name(os.fsdecode(path)).endswith("caf\\xe9.png")


def test_broken_image_survives_a_process_boundary() -> None:
    there = pickle.loads(pickle.dumps(BrokenImage("a.png", "empty", "remove it")))
    assert (there.name, there.reason, str(there)) == ("a.png", "empty", "a.png: empty; remove it")

"""16 bits, floating point, more channels than three, EXIF against annotations: what a picture's values become."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crosshead.data.decode.decoding import Bands, Decoding, judge_white, white_level_for
from crosshead.data.decode.images import BrokenImage, decode_image, inspect_image
from crosshead.data.tools.check import check_images
from crosshead.data.transforms.pipeline import channels_of
from crosshead.recipe import default_recipe
from crosshead.recipe.schema import DataConfig
from detect_files import coco_folder
from map_files import map_folder
from opening import open_data


def png16(values: np.ndarray) -> bytes:
    """(H, W, C) uint16; Pillow writes no more than one channel of 16 bits."""
    high, wide, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", wide, high, 16, kind, 0, 0, 0), b"IDAT": zlib.compress(rows)}
    body = b"\x89PNG\r\n\x1a\n"
    for name, content in (chunks | {b"IEND": b""}).items():
        body += (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )
    return body


def tiff16(values: np.ndarray, extra: int | None, order: str) -> bytes:
    """(H, W, C) uint16, uncompressed; ``extra`` says what the fourth channel is."""
    high, wide, channels = values.shape
    body = values.astype(f"{order}u2").tobytes()
    entries = [
        (256, wide),
        (257, high),
        (258, -1),
        (259, 1),
        (262, 2),
        (273, -1),
        (277, channels),
        (278, high),
    ]
    entries += [(279, len(body)), (284, 1)] + ([] if extra is None else [(338, extra)])
    bits_at = 8 + 2 + 12 * len(entries) + 4
    places = {258: bits_at, 273: bits_at + 2 * channels}
    out = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    for tag, value in entries:
        count = channels if tag == 258 else 1
        if tag in (258, 273, 279):
            out += struct.pack(f"{order}HHII", tag, 3 if tag == 258 else 4, count, places.get(tag, value))
        else:
            out += struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
    return out + struct.pack(f"{order}I{channels}H", 0, *[16] * channels) + body


def four_bands(pixels: np.ndarray, *, alpha: bool = False) -> bytes:
    file = io.BytesIO()
    mode = "RGBA" if alpha else "RGBX"
    Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes()).save(file, "TIFF")
    return file.getvalue()


def many_bands(channels: int) -> bytes:
    """2 x 2 pixels of 8 bits, all zero."""
    body = bytes(4 * channels)
    bits, extra = 8 + len(body), 8 + len(body) + 2 * channels
    entries = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, channels, bits), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 8), (277, 3, 1, channels), (278, 3, 1, 2), (279, 4, 1, len(body)), (284, 3, 1, 1)]
    entries.append((338, 3, channels - 1, extra))
    at = extra + 2 * (channels - 1)
    listed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    numbers = struct.pack(f"<{channels}H", *[8] * channels) + bytes(2 * (channels - 1))
    return (
        b"II*\0"
        + struct.pack("<I", at)
        + body
        + numbers
        + struct.pack("<H", len(entries))
        + listed
        + bytes(4)
    )


def some(channels: int, most: int, dtype: type = np.uint16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, most + 1, (5, 7, channels)).astype(dtype)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_white_is_where_the_white_level_says_whatever_the_channels(channels: int) -> None:
    values = some(channels, 4095)
    wanted = np.rint(values / 4095 * 255)
    files = [png16(values)]
    if channels > 2:
        files += [
            tiff16(values, extra, order)
            for order in "<>"
            for extra in ((0, 1, 2) if channels == 4 else (None,))
        ]
    for file in files:
        picture = decode_image(file, decoding=Decoding(channels=channels, white_level=4095))
        pixels = picture.bands if isinstance(picture, Bands) else np.asarray(picture)
        assert np.array_equal(pixels.reshape(wanted.shape), wanted)
        assert (
            picture.info["highest"]
            == values.max()
            == inspect_image(file, decoding=Decoding(channels=channels)).highest
        )


def test_transparency_of_sixteen_bits_has_its_own_white() -> None:
    values = np.full((2, 3, 4), 4095, np.uint16)
    values[..., :3], values[0, :, 3], values[1, :, 3] = 0, 65535, 0
    picture = decode_image(png16(values), decoding=Decoding(white_level=4095))
    assert np.asarray(picture)[:, 0].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert picture.info["highest"] == 0


def test_each_picture_can_have_its_own_white_and_what_is_above_is_cut_off() -> None:
    values = np.array([[[0], [100], [200]]], np.uint16)
    own = decode_image(png16(values), decoding=Decoding(white_level="per_image"))
    assert np.asarray(own).tolist() == [[0, 128, 255]]
    cut = decode_image(png16(values), decoding=Decoding(white_level=100))
    assert np.asarray(cut).tolist() == [[0, 255, 255]]
    assert [white_level_for(n) for n in (0, 255, 256, 4095, 4096, 65535)] == [
        255,
        255,
        1023,
        4095,
        16383,
        65535,
    ]
    assert "cut off" in str(judge_white(5000, Decoding(white_level=4095)))
    assert "data.white_level=4095" in str(judge_white(4095, Decoding()))
    assert (
        judge_white(4095, Decoding(white_level=4095))
        is judge_white(3, Decoding(white_level="per_image"))
        is None
    )


def test_floating_point_needs_a_stated_range() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[-1.0, 0.0, 0.5, 1.0, 7.0]], np.float32)).save(file, "TIFF")
    with pytest.raises(BrokenImage, match=r"-1 to 7.*data\.value_range=\[LOW,HIGH\]"):
        decode_image(file.getvalue())
    picture = decode_image(file.getvalue(), decoding=Decoding(value_range=(0.0, 1.0)))
    assert np.asarray(picture).tolist() == [[0, 0, 128, 255, 255]]
    nothing = io.BytesIO()
    Image.fromarray(np.array([[np.nan]], np.float32)).save(nothing, "TIFF")
    with pytest.raises(BrokenImage, match="not finite"):
        decode_image(nothing.getvalue(), decoding=Decoding(value_range=(0.0, 1.0)))
    with pytest.raises(ValueError, match=r"data\.value_range.*smaller one first"):
        default_recipe(["data.value_range=[1,0]"])


def test_a_fourth_channel_that_is_no_transparency_is_learned_or_refused() -> None:
    pixels = some(4, 255, np.uint8)
    with pytest.raises(BrokenImage, match=r"4 channels.*data\.channels=4"):
        decode_image(four_bands(pixels))
    for alpha in (False, True):
        picture = decode_image(four_bands(pixels, alpha=alpha), decoding=Decoding(channels=4))
        assert isinstance(picture, Bands) and np.array_equal(picture.bands, pixels)
        assert np.array_equal(np.asarray(picture.convert("RGB")), pixels[..., :3])  # what people are shown
        assert np.array_equal(channels_of(picture, 4).numpy(), pixels.transpose(2, 0, 1))
    with pytest.raises(BrokenImage, match=r"3 channels, and data\.channels is 4"):
        decode_image(png16(some(3, 9)), decoding=Decoding(channels=4))
    assert inspect_image(four_bands(pixels, alpha=True)).tagged_alpha


@pytest.mark.parametrize("channels", [5, 8])
def test_more_channels_than_are_read_are_named_as_that(tmp_path: Path, channels: int) -> None:
    content = many_bands(channels)
    (tmp_path / "a.tif").write_bytes(content)
    for source in (content, tmp_path / "a.tif"):
        for wanted in (3, 4):
            with pytest.raises(BrokenImage, match=r"a TIFF of a kind that is not read.*one to four channels"):
                decode_image(source, decoding=Decoding(channels=wanted))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_exif_turns_all_channels_or_none(orientation: int) -> None:
    pixels = some(4, 255, np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.frombytes("RGBA", (7, 5), pixels.tobytes()).save(file, "PNG", exif=exif)
    turned = decode_image(file.getvalue(), decoding=Decoding(channels=4))
    stored = decode_image(file.getvalue(), decoding=Decoding(channels=4, exif="ignore"))
    assert isinstance(turned, Bands) and isinstance(stored, Bands)
    assert np.array_equal(stored.bands, pixels) and stored.info["orientation"] == orientation
    assert np.array_equal(turned.bands, np.rot90(pixels, {1: 0, 3: 2, 6: -1}[orientation]))


def folder_of(root: Path, make, classes=("a", "b"), count: int = 6, suffix: str = "png") -> DataConfig:
    for part in ("train", "val"):
        for k, name in enumerate(classes):
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(count):
                (place / f"{i}.{suffix}").write_bytes(make(k, i))
    return default_recipe([], {"data.name": "folder", "data.root": str(root), "data.image_size": 8}).data


def twelve_bits(k: int, i: int) -> bytes:
    return png16(np.full((6, 6, 1), 1200 + 1800 * k + i, np.uint16))


def test_the_white_level_is_found_in_the_training_pictures_and_told(tmp_path: Path) -> None:
    data = folder_of(tmp_path, twelve_bits)
    splits = open_data(data)
    assert splits.resolved == {"white_level": 4095}
    assert "values up to 3005: white is 4095 (data.white_level)" in splits.seen[0]
    assert np.asarray(splits.validation.load(0))[0, 0] == round(1200 / 4095 * 255)
    told = open_data(data.model_copy(update={"white_level": 65535}))
    assert told.resolved == {} and "nearly black; data.white_level=4095" in told.seen[0]
    report = check_images(open_data(data.model_copy(update={"white_level": 2000})))
    train = report.splits["train"]
    assert (train.wide, train.highest, train.beyond_white) == (12, 3005, 6)


def test_of_channels_of_which_no_data_set_tells_the_statistics_are_computed(tmp_path: Path) -> None:
    data = folder_of(tmp_path, lambda k, i: four_bands(some(4, 255, np.uint8) // (k + 1)), suffix="tif")
    with_four = data.model_copy(update={"channels": 4})
    splits = open_data(with_four)
    pixels = np.stack([some(4, 255, np.uint8) // (k + 1) for k in (0, 1)]).reshape(-1, 4) / 255
    assert np.allclose(splits.info.mean, pixels.mean(0)) and np.allclose(splits.info.std, pixels.std(0))
    assert splits.resolved["mean"] == list(splits.info.mean)
    given = with_four.model_copy(update={"mean": [0.5] * 4, "std": [0.2] * 4})
    assert open_data(given).info.mean == (0.5,) * 4
    report = check_images(open_data(with_four))
    assert np.allclose(report.splits["train"].mean, pixels.mean(0)) and not report.broken
    assert all("data.channels=4" in reason for _, reason in check_images(open_data(data)).broken)
    with pytest.raises(ValueError, match=r"data\.channels is 4, and the pictures of data\.name=digits"):
        open_data(default_recipe(["data.channels=4"]).data)


def turned(file: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(file) as image:
        image.load()
        image.save(file, exif=exif)


def test_exif_beside_boxes_and_maps_is_counted_and_warned_of(tmp_path: Path) -> None:
    coco, maps = coco_folder(tmp_path / "coco"), map_folder(tmp_path / "maps")
    for i in range(8):
        turned(coco / "images" / f"{i}.png", 3)
        turned(maps / "images" / f"{i}.png", 3)
    for name, root, what in (("coco-folder", coco, "boxes"), ("map-folder", maps, "maps")):
        data = default_recipe([], {"data.name": name, "data.root": str(root)}).data
        seen = open_data(data).seen
        assert f"turned by EXIF, and their {what}" in seen[0] and "data.exif=ignore" in seen[0]
        report = check_images(open_data(data))
        assert sum(part.turned for part in report.splits.values()) == 8 and not report.exif_stated
        stored = default_recipe([], {"data.name": name, "data.root": str(root), "data.exif": "ignore"}).data
        assert open_data(stored).seen == ()
        as_stored = open_data(stored).train.load(0), open_data(data).train.load(0)
        assert as_stored[0].tobytes() == as_stored[1].transpose(Image.Transpose.ROTATE_180).tobytes()


def test_sizes_that_fit_the_stored_pixels_alone_name_exif(tmp_path: Path) -> None:
    coco, maps = coco_folder(tmp_path / "coco"), map_folder(tmp_path / "maps")
    for root in (coco, maps):
        turned(root / "images" / "0.png", 6)
    for name, root in (("coco-folder", coco), ("map-folder", maps)):
        data = default_recipe([], {"data.name": name, "data.root": str(root)}).data
        ((_, reason),) = check_images(open_data(data)).broken
        assert "EXIF turns this picture by a quarter" in reason and "data.exif=ignore" in reason
        assert not check_images(open_data(data.model_copy(update={"exif": "ignore"}))).broken


def test_a_recorded_recipe_of_before_white_levels_keeps_its_scale() -> None:
    recorded = default_recipe().model_dump(mode="json")["data"]
    del recorded["white_level"]
    assert DataConfig.model_validate_json(json.dumps(recorded)).white_level == 65535
    assert DataConfig.model_validate_json("{}").white_level == "auto"

"""Tar shards in WebDataset's form, written by hand as other tools write them."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from odd_files import encoded, picture

from crosshead.data.base import Splits
from crosshead.data.datasets.shards import INDEX_SUFFIX, shard_files, shard_samples
from crosshead.recipe.schema import DataConfig
from opening import open_data


def write_tar(path: Path, members: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, body in members:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))


def sample(key: str, target: int, kind: str = "jpg") -> list[tuple[str, bytes]]:
    body = encoded(picture(target), "JPEG" if kind == "jpg" else "PNG")
    return [
        (f"{key}.cls", str(target).encode()),
        (f"{key}.{kind}", body),
        (f"{key}.json", b'{"from": "afar"}'),
    ]


def opened(root: Path) -> Splits:
    return open_data(DataConfig(name="shards", root=str(root), validation=0.5), seed=0)


def write_root(root: Path) -> None:
    for shard in range(2):
        members = [part for i in range(4) for part in sample(f"{shard}/{i:04d}", i % 2)]
        write_tar(root / f"train-{shard:06d}.tar", members)
    write_tar(root / "val" / "0.tar", sample("a", 0, "png") + sample("b.c", 1))
    (root / "classes.json").write_text('["cat", "dög"]')


def test_splits_classes_and_pictures_are_found(tmp_path: Path) -> None:
    write_root(tmp_path)
    splits = opened(tmp_path)
    assert (len(splits.train), len(splits.validation), splits.test) == (8, 2, None)
    assert splits.info.class_names == ("cat", "dög")
    assert list(splits.train.targets) == [0, 1] * 4
    assert splits.train.name(5) == f"{tmp_path}/train-000001.tar@1/0001.jpg"
    assert all(splits.train.load(i).size == (16, 12) for i in range(8))
    assert splits.validation.load(0).size == (16, 12)


def test_without_validation_shards_a_share_is_held_out(tmp_path: Path) -> None:
    write_root(tmp_path)
    (tmp_path / "val" / "0.tar").unlink()
    (tmp_path / "classes.json").unlink()
    splits = opened(tmp_path)
    assert (len(splits.train), len(splits.validation)) == (4, 4)
    assert splits.info.class_names == ("0", "1")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_of_tar_is_read(tmp_path: Path, format: int) -> None:
    key = "deep/" * 18 + "x" if format == tarfile.USTAR_FORMAT else "very/" * 60 + "long"
    write_tar(tmp_path / "train-0.tar", sample(key, 0), format)
    (name, target, offset, size) = shard_samples(tmp_path / "train-0.tar")[0]
    assert (name, target) == (f"{key}.jpg", 0)
    body = (tmp_path / "train-0.tar").read_bytes()[offset : offset + size]
    assert body == encoded(picture(0), "JPEG")


def test_a_shard_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    write_root(tmp_path)
    shard = tmp_path / "train-000001.tar"
    whole = shard.read_bytes()
    last = max(offset + size for _, _, offset, size in shard_samples(shard))
    for size in (len(whole) // 2, 512, 700, last, (last // 512 + 1) * 512, 0):
        shard.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"train-000001.tar: (no whole tar file|cut short).* again"):
            opened(tmp_path)


def test_an_index_that_does_not_belong_to_its_shard_is_an_error(tmp_path: Path) -> None:
    write_root(tmp_path)
    shard = tmp_path / "train-000000.tar"
    index = tmp_path / "train-000000.tar.index.json"
    for text, message in {
        json.dumps({"bytes": shard.stat().st_size + 1, "samples": []}): "was written for",
        "{": "damaged",
        json.dumps({"samples": []}): "damaged",
        json.dumps({"bytes": shard.stat().st_size, "samples": [["a.jpg", -1, 0, 0]]}): "damaged",
        json.dumps({"bytes": shard.stat().st_size, "samples": [["../a.jpg", 1, 0, 0]]}): "leaves the archive",
    }.items():
        index.write_text(text)
        with pytest.raises(ValueError, match=message):
            opened(tmp_path)


def test_odd_members_are_named(tmp_path: Path) -> None:
    picture_only = [("a.jpg", encoded(picture(), "JPEG"))]
    cases = {
        r"1 pictures and the classes \[\]": picture_only,
        r"0 pictures and the classes \[b'0'\]": [("a.cls", b"0")],
        r"2 pictures and": [*picture_only, ("a.left.jpg", b""), ("a.cls", b"0")],
        r"the classes \[b'cat'\]": [*picture_only, ("a.cls", b"cat")],
        "leaves the archive": [("../a.jpg", b""), ("../a.cls", b"0")],
        "expected a class number": [*picture_only, ("a.cls", b"0" * 1000)],
        "no samples": [("readme.txt", b"nothing")],
    }
    for message, members in cases.items():
        write_tar(tmp_path / "train-0.tar", members)
        with pytest.raises(ValueError, match=message):
            opened(tmp_path)
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(ValueError, match=r"'a.jpg' is a link or a device"):
        opened(tmp_path)


def test_class_names_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    write_root(tmp_path)
    for text, message in {
        '["cat"]': "1 class names, but the shards have class 1",
        "{}": "a JSON list",
        "[": "damaged",
    }.items():
        (tmp_path / "classes.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            opened(tmp_path)


def test_huge_numbers_are_errors_and_take_no_memory(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", sample("a", 3_000_000_000))
    with pytest.raises(ValueError, match=r"class number 3000000000 in the shards"):
        opened(tmp_path)
    shard = tmp_path / "train-0.tar"
    content = {"bytes": shard.stat().st_size, "samples": [["a.jpg", 0, 2**70, 10]]}
    shard.with_name(shard.name + INDEX_SUFFIX).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"would end behind the shard"):
        opened(tmp_path)


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    for number in (3, 4, 7, 8):
        write_tar(tmp_path / f"train-{number:06d}.tar", sample(f"{number}", number % 2))
    with pytest.raises(
        ValueError, match=r"2 of train.s shards missing, expected train-000005.tar, train-000006"
    ):
        opened(tmp_path)
    for number in (5, 6):
        write_tar(tmp_path / f"train-{number:06d}.tar", sample(f"{number}", number % 2))
    assert len(opened(tmp_path).train) + len(opened(tmp_path).validation) == 6
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / f"b-12.tar{INDEX_SUFFIX}").write_text("{}")
    with pytest.raises(ValueError, match=r"1 of train's shards missing, expected train/b-12.tar; copy"):
        opened(tmp_path)


def test_numbers_of_unlike_names_are_no_gap(tmp_path: Path) -> None:
    for name in ("train-1", "train-b-3", "train-00005", "train-20260101", "train-20261121", "train-last"):
        write_tar(tmp_path / f"{name}.tar", sample(name, len(name) % 2))
    assert len(shard_files(tmp_path, "train")) == 6


def test_a_folder_without_shards_shows_the_layout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no shards of train; expected ROOT/train-000000.tar"):
        opened(tmp_path)

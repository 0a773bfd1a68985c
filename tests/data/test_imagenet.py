"""ImageNet in class folders and in zip files with map texts."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from odd_files import encoded, picture, write_class_folders

from crosshead.data.base import Splits
from crosshead.data.batching.labelled import EvaluationBatches
from crosshead.data.batching.loader import evaluation_loader
from crosshead.data.datasets.archives import ArchivedImages
from crosshead.data.decode.images import BrokenImage
from crosshead.recipe.schema import DataConfig
from opening import open_data

TRAIN = {
    "n01440764/n01440764_10026.JPEG": 0,
    "n01440764/n01440764_1.JPEG": 0,
    "n01443537/n01443537_2.JPEG": 1,
}
VAL = {"ILSVRC2012_val_00000001.JPEG": 1, "ILSVRC2012_val_00000002.JPEG": 0}


def write_zip(root: Path, part: str, files: dict[str, int], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(root / f"{part}.zip", "w", method) as archive:
        for i, name in enumerate(files):
            archive.writestr(name, encoded(picture(i, 20, 20 + i), "JPEG"))
    lines = "".join(f"{name}\t{target}\n" for name, target in files.items())
    (root / f"{part}_map.txt").write_text(lines)


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    write_zip(tmp_path, "train", TRAIN)
    write_zip(tmp_path, "val", VAL, zipfile.ZIP_DEFLATED)
    return tmp_path


def opened(root: Path) -> Splits:
    return open_data(DataConfig(name="imagenet", root=str(root), image_size=16, batch_size=2), seed=0)


def test_class_folders_are_read(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", {"n01440764": 2, "n01443537": 2}, "jpeg")
    write_class_folders(tmp_path / "val", {"n01440764": 1, "n01443537": 1}, "jpeg")
    splits = opened(tmp_path)
    assert splits.info.class_names == ("n01440764", "n01443537") and len(splits.validation) == 2


def test_zip_files_are_read_with_their_maps(zipped: Path) -> None:
    splits = opened(zipped)
    assert splits.test is None and splits.info.class_names == ("n01440764", "n01443537")
    assert list(splits.train.targets) == [0, 0, 1] and list(splits.validation.targets) == [1, 0]
    assert splits.train.name(1) == f"{zipped}/train.zip@n01440764/n01440764_1.JPEG"
    for images in (splits.train, splits.validation):
        for i in range(len(images)):
            want = np.asarray(picture(i, 20, 20 + i)).astype(int)
            assert np.abs(np.asarray(images.load(i)).astype(int) - want).max() <= 12
    assert splits.train.subset(np.array([2])).load(0).size == (22, 20)


def test_zip_files_are_read_by_workers_and_after_pickling(zipped: Path) -> None:
    splits = opened(zipped)
    data = DataConfig(image_size=16, batch_size=1)
    here = list(evaluation_loader(EvaluationBatches(splits.train, data, splits.info)))
    spread = data.model_copy(update={"num_workers": 2})
    there = evaluation_loader(EvaluationBatches(splits.train, spread, splits.info))
    for got, want in zip(there, here, strict=True):
        assert got.images.equal(want.images) and got.names == want.names
    again = pickle.loads(pickle.dumps(splits.train))
    assert again.load(0).size == splits.train.load(0).size


def test_members_may_stand_behind_the_name_of_their_archive(zipped: Path) -> None:
    want = opened(zipped)
    for part, files in {"train": TRAIN, "val": VAL}.items():
        lines = "".join(f"{part}.zip@/{name}\t{target}\n" for name, target in files.items())
        (zipped / f"{part}_map.txt").write_text(lines)
    got = opened(zipped)
    assert got.info == want.info
    for mine, theirs in ((got.train, want.train), (got.validation, want.validation)):
        assert [mine.name(i) for i in range(len(mine))] == [theirs.name(i) for i in range(len(theirs))]
        assert (
            list(mine.targets) == list(theirs.targets) and mine.load(0).tobytes() == theirs.load(0).tobytes()
        )
    (zipped / "val_map.txt").write_text("train.zip@/n01440764/n01440764_1.JPEG\t0\n")  # another archive's
    with pytest.raises(ValueError, match=r"1 of the 1 pictures in val_map.txt are not in it"):
        opened(zipped)


def test_nothing_is_unpacked_and_no_archive_stays_open(zipped: Path) -> None:
    before = sorted(zipped.rglob("*"))
    splits = opened(zipped)
    splits.train.load(0)
    (zipped / "train.zip").unlink()
    with pytest.raises(BrokenImage, match="No such file"):
        splits.train.load(0)
    assert sorted(zipped.rglob("*")) == [path for path in before if path.name != "train.zip"]


@pytest.mark.parametrize(
    "name", ["../outside.JPEG", "/etc/passwd", "a/../../b.JPEG", "..\\b.JPEG", "C:/b.JPEG"]
)
def test_paths_that_leave_the_archive_are_refused(zipped: Path, name: str) -> None:
    whole = (zipped / "train_map.txt").read_text()
    write_zip(zipped, "train", {**TRAIN, name: 1})
    (zipped / "train_map.txt").write_text(whole)
    with pytest.raises(ValueError, match=r"train.zip: the path .* leaves the archive"):
        opened(zipped)
    write_zip(zipped, "train", TRAIN)
    for prefix in ("", "train.zip@/"):
        (zipped / "train_map.txt").write_text(f"{whole}{prefix}{name}\t1\n")
        with pytest.raises(ValueError, match=r"train_map.txt:4: the path .* leaves train.zip"):
            opened(zipped)


def test_maps_that_do_not_fit_are_named_with_the_line(zipped: Path) -> None:
    map_file = zipped / "val_map.txt"
    cases = {
        "a.JPEG\t0\nb.JPEG 1\n": r"val_map.txt:2: 'b.JPEG 1'; expected a path",
        "a.JPEG\tcat\n": r"val_map.txt:1: ",
        "\t3\n": r"val_map.txt:1: ",
        "": "val_map.txt: empty",
        "gone.JPEG\t0\n": r"1 of the 1 pictures in val_map.txt are not in it, the first is 'gone.JPEG'",
        "ILSVRC2012_val_00000001.JPEG\t7\n": r"val_map.txt: class 7, but train_map.txt has 2 classes",
    }
    for text, message in cases.items():
        map_file.write_text(text)
        with pytest.raises(ValueError, match=message):
            opened(zipped)


def test_a_huge_class_number_is_an_error_and_takes_no_memory(zipped: Path) -> None:
    (zipped / "train_map.txt").write_text(f"{next(iter(TRAIN))}\t3000000000\n")
    with pytest.raises(ValueError, match=r"train_map.txt: no picture of class 0, but of class 3000000000"):
        opened(zipped)
    (zipped / "train_map.txt").write_text(f"{next(iter(TRAIN))}\t{'9' * 5000}\n")
    with pytest.raises(ValueError, match=r"train_map.txt:1: .*expected a path"):
        opened(zipped)


def test_a_class_without_pictures_is_an_error(zipped: Path) -> None:
    write_zip(zipped, "train", {"a/1.JPEG": 0, "c/1.JPEG": 2})
    with pytest.raises(ValueError, match="no picture of class 1"):
        opened(zipped)


def test_missing_files_are_named_with_the_layout(zipped: Path) -> None:
    (zipped / "val_map.txt").unlink()
    with pytest.raises(ValueError, match=r"val_map.txt missing; expected ROOT/train/WNID"):
        opened(zipped)
    with pytest.raises(ValueError, match="train and val missing"):
        (zipped / "sub").mkdir()
        opened(zipped / "sub")


def test_a_zip_cut_in_half_is_an_error(zipped: Path) -> None:
    archive = zipped / "train.zip"
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"train.zip: no whole zip file .*copy it again"):
        opened(zipped)


@pytest.mark.parametrize("part", ["train", "val"])
def test_damaged_members_are_broken_images(zipped: Path, part: str) -> None:
    splits = opened(zipped)
    images = splits.train if part == "train" else splits.validation
    assert isinstance(images, ArchivedImages)
    archive = zipped / f"{part}.zip"
    body = bytearray(archive.read_bytes())
    body[int(images.entries["offset"][1]) + 100] ^= 0xFF
    body[int(images.entries["offset"][0])] = 0
    archive.write_bytes(body)
    with pytest.raises(BrokenImage, match=r"\.zip@.*: can't be read from its archive: its header is damaged"):
        images.load(0)
    with pytest.raises(BrokenImage, match="damaged"):
        images.load(1)


def test_a_member_that_would_unpack_to_gigabytes_is_refused(zipped: Path) -> None:
    images = opened(zipped).validation
    assert isinstance(images, ArchivedImages)
    images.entries["size"][0] = 1 << 40
    with pytest.raises(BrokenImage, match="above the limit"):
        images.load(0)
    images.entries["size"][1] = 10  # a directory that lies: no more is unpacked than it announces
    with pytest.raises(BrokenImage, match="wrong CRC"):
        images.load(1)

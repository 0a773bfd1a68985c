"""Class folders in their layouts, with everything that lies about in them."""

import os
from pathlib import Path

import pytest
from odd_files import encoded, picture, write_class_folders
from PIL import Image

from crosshead.data.base import FileImages, Splits
from crosshead.data.decode.images import BrokenImage
from crosshead.data.tools.check import check_images
from crosshead.recipe.schema import DataConfig
from opening import open_data


def opened(root: Path, **options: object) -> Splits:
    return open_data(DataConfig(name="folder", root=str(root), **options), seed=0)  # type: ignore[arg-type]


def test_given_splits_are_kept(tmp_path: Path) -> None:
    for part, count in {"train": 3, "val": 2, "test": 1}.items():
        write_class_folders(tmp_path / part, {"cat": count, "dog": count})
    splits = opened(tmp_path)
    assert splits.test is not None
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [6, 4, 2]
    assert splits.info.class_names == ("cat", "dog")
    assert list(splits.train.targets) == [0, 0, 0, 1, 1, 1]
    assert splits.train.name(3) == str(tmp_path / "train" / "dog" / "0.png")


def test_one_folder_is_split_by_class_and_seed(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 10, "b": 20})
    splits = opened(tmp_path, validation=0.2)
    assert splits.test is None and len(splits.train) == 24
    assert sorted(splits.validation.targets) == [0, 0, 1, 1, 1, 1]
    other = open_data(DataConfig(name="folder", root=str(tmp_path), validation=0.2), seed=1)
    assert isinstance(other.validation, FileImages) and isinstance(splits.validation, FileImages)
    assert other.validation.paths != splits.validation.paths


def test_a_class_missing_from_val_shifts_no_index(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", {"a": 1, "b": 1, "c": 1})
    write_class_folders(tmp_path / "val", {"a": 1, "c": 1})
    splits = opened(tmp_path)
    assert splits.info.class_names == ("a", "b", "c") and list(splits.validation.targets) == [0, 2]
    (note,) = splits.notes
    assert "val: no pictures of b (1 of 3 classes): nothing is measured of them there" in note


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_may_have_any_of_its_names(tmp_path: Path, name: str) -> None:
    write_class_folders(tmp_path / "train", {"a": 2, "b": 2})
    write_class_folders(tmp_path / name, {"a": 1, "b": 1})
    splits = opened(tmp_path)
    assert not splits.held_out and len(splits.validation) == 2
    assert splits.origin("validation") == str(tmp_path / name)
    write_class_folders(tmp_path / "valida", {"a": 1})
    (tmp_path / "valida").rename(tmp_path / ("valid" if name != "valid" else "val"))
    with pytest.raises(ValueError, match="are both there; keep one folder"):
        opened(tmp_path)


def test_avif_and_jfif_are_read_and_what_is_not_is_named(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "8.jfif").write_bytes(encoded(picture(), "JPEG"))
    (tmp_path / "a" / "9.avif").write_bytes(encoded(picture(), "AVIF"))
    (tmp_path / "b" / "phone.HEIC").write_bytes(b"ftypheic")
    (tmp_path / "b" / "notes.txt").write_text("of no interest")
    splits = opened(tmp_path, validation=0.5)
    assert len(splits.train) + len(splits.validation) == 6
    assert isinstance(splits.train, FileImages) and isinstance(splits.validation, FileImages)
    for images in (splits.train, splits.validation):
        assert all(images.load(i).size == (16, 12) for i in range(len(images)))
    reasons = {Path(file).name: why for file, why in splits.passed_over}
    assert reasons["notes.txt"] == "no suffix of a picture"
    assert "HEIC" in reasons["phone.HEIC"] and "convert" in reasons["phone.HEIC"]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.heic").write_bytes(b"ftypheic")
    with pytest.raises(ValueError, match=r"c: no pictures of this class .*1.heic: HEIC, which"):
        opened(tmp_path)


def test_a_folder_of_links_is_said_once_with_the_key_that_allows_it(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "store", {"a": 4})
    for i in range(4):
        for name in "ab":
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name / f"{i}.png").symlink_to(tmp_path / "store" / "a" / f"{i}.png")
    with pytest.raises(ValueError, match=r"8 of 8 pictures are links .*data.follow_links=true reads them"):
        opened(tmp_path / "data")
    assert len(opened(tmp_path / "data", follow_links=True, validation=0.5).train) == 4
    picture().save(tmp_path / "data" / "a" / "own.png")
    (note,) = opened(tmp_path / "data").notes
    assert "8 of 9 pictures are links" in note and "data.follow_links=true" in note
    with pytest.raises(ValueError, match="8 of 9 pictures are links"):
        opened(tmp_path / "data", max_broken=7)


def test_a_class_that_train_does_not_have_is_an_error(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", {"a": 1})
    write_class_folders(tmp_path / "val", {"a": 1, "zebra": 1})
    with pytest.raises(ValueError, match="zebra are not among the 1 training classes"):
        opened(tmp_path)


def test_an_empty_class_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 2})
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("none yet")
    with pytest.raises(ValueError, match=r"empty: no pictures of this class"):
        opened(tmp_path)


def test_a_root_that_is_not_there_shows_the_layout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a folder; expected ROOT of ROOT/train/CLASS"):
        opened(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"data.root is not set"):
        open_data(DataConfig(name="folder"), seed=0)
    with pytest.raises(ValueError, match="no class folders"):
        opened(tmp_path)


def test_hidden_and_other_files_are_left_out_and_nested_ones_found(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "._0.png").write_bytes(b"resource fork")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    deep = tmp_path / "b" / Path(*["level" * 5] * 60)
    deep.mkdir(parents=True)
    picture().save(deep / "DEEP.PNG")
    splits = opened(tmp_path, validation=0.4)
    assert splits.info.class_names == ("a", "b")
    assert len(splits.train) + len(splits.validation) == 5
    images = splits.train if any("DEEP" in p for p in splits.train.paths) else splits.validation  # type: ignore
    where = next(i for i in range(len(images)) if "DEEP" in images.name(i))
    assert images.load(where).size == (16, 12)


def test_names_that_are_no_utf8_are_read_and_shown(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 2})
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    for name in (b"1.png", b"\xff\xfe.png"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(encoded(picture(), "PNG"))
    splits = opened(tmp_path, validation=0.5)
    assert splits.info.class_names == ("a", "caf\\xe9")
    shown = [part.name(i) for part in (splits.train, splits.validation) for i in range(len(part))]
    assert sum("caf\\xe9" in name for name in shown) == 2
    assert all(name.isprintable() for name in shown)
    assert all(splits.train.load(i).size == (16, 12) for i in range(len(splits.train)))


def test_a_file_link_out_of_the_folder_is_a_broken_image(tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "secret.png"
    write_class_folders(root / "train", {"a": 1, "b": 1})
    write_class_folders(root / "val", {"a": 1, "b": 1})
    picture().save(outside)
    (root / "train" / "a" / "9.png").symlink_to(outside)
    (root / "train" / "a" / "8.png").symlink_to(root / "val" / "a" / "0.png")
    train = opened(root).train
    assert train.load(1).size == (16, 12), "a link inside the folder is fine"
    with pytest.raises(BrokenImage, match=rf"9\.png: a link that leaves the data folder, to {outside}"):
        train.load(2)
    assert opened(root, follow_links=True).train.load(2).size == (16, 12)


def test_a_class_folder_link_out_of_the_folder_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_class_folders(root, {"a": 4})
    write_class_folders(tmp_path / "elsewhere", {"b": 4})
    (root / "b").symlink_to(tmp_path / "elsewhere" / "b")
    with pytest.raises(ValueError, match=r"leaves the data folder, to .*set data.follow_links=true"):
        opened(root)
    assert opened(root, follow_links=True).info.class_names == ("a", "b")


def test_a_link_back_up_is_not_followed_round_and_round(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 3})
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    splits = opened(tmp_path)
    assert len(splits.train) + len(splits.validation) == 3


def test_links_in_a_circle_are_broken_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    os.symlink("round.png", tmp_path / "a" / "round.png")
    os.symlink("self", tmp_path / "self")
    report = check_images(open_data(DataConfig(name="folder", root=str(tmp_path), validation=0.3)))
    ((name, reason),) = report.broken
    assert name.endswith("round.png") and "Too many levels of symbolic links" in reason
    assert report.info.class_names == ("a", "b")

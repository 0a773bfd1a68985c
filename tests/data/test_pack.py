"""What is packed comes back, byte for byte."""

import os
import tarfile
from pathlib import Path

import pytest
from odd_files import write_class_folders

from crosshead.data.base import FileImages, ImageSet
from crosshead.data.datasets.shards import INDEX_SUFFIX, shard_samples
from crosshead.data.tools.pack import pack
from crosshead.recipe.schema import DataConfig
from opening import open_data, recipe_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    write_class_folders(root / "train", {"cat": 9, "dog": 8}, "png")
    write_class_folders(root / "val", {"cat": 3, "dog": 2}, "jpeg")
    return root


def config(root: Path, name: str = "folder", **changes: int) -> DataConfig:
    return DataConfig(name=name, root=str(root), **changes)  # type: ignore[arg-type]


def contents(images: ImageSet) -> list[tuple[int, bytes]]:
    return sorted((images.targets[i], images.encoded(i)) for i in range(len(images)))  # type: ignore[attr-defined]


def test_shards_hold_the_same_bytes_and_classes(folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    out = tmp_path / "out"
    report = pack(
        recipe_of(config(folder)), out, shard_megabytes=0.006, progress=lambda *now: calls.append(now)
    )
    assert report.samples == {"train": 17, "val": 5} and report.broken == ()
    assert report.shards["train"] > 2 and len(list(out.glob("train-*.tar"))) == report.shards["train"]
    assert calls[-1] == (22, 22) and len(calls) == 22
    before, after = open_data(config(folder), seed=0), open_data(config(out, "shards"), seed=0)
    assert after.info.class_names == before.info.class_names == ("cat", "dog")
    assert contents(after.train) == contents(before.train)
    assert contents(after.validation) == contents(before.validation)
    assert not list(out.glob("*.partial"))


def test_indexes_say_what_the_headers_say(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(recipe_of(config(folder)), out)
    for shard in out.glob("*.tar"):
        indexed = shard_samples(shard)
        Path(f"{shard}{INDEX_SUFFIX}").unlink()
        assert shard_samples(shard) == indexed
        with tarfile.open(shard) as tar:
            assert len(tar.getnames()) == 2 * len(indexed)


def test_shards_are_shuffled_by_the_seed_alone(folder: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pack(recipe_of(config(folder), seed=seed), tmp_path / name)
    a, b, c = ((tmp_path / name / "train-000000.tar").read_bytes() for name in "abc")
    assert a == b != c
    targets = [target for _, target, _, _ in shard_samples(tmp_path / "a" / "train-000000.tar")]
    assert targets != sorted(targets)


def test_unreadable_pictures_are_left_out_and_reported(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "cat" / "3.png").write_bytes(b"")
    (folder / "train" / "dog" / "9.png").symlink_to("/etc/passwd")
    report = pack(recipe_of(config(folder)), tmp_path / "out")
    assert report.samples["train"] == 16
    reasons = {os.path.basename(name): reason for name, reason in report.broken}
    assert "empty" in reasons["3.png"] and "leaves the data folder" in reasons["9.png"]
    with pytest.raises(ValueError, match=r"2 pictures can't be read, above data.max_broken \(1\)"):
        pack(recipe_of(config(folder, max_broken=1)), tmp_path / "other")


def test_what_cannot_be_packed_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="digits is held in memory"):
        pack(recipe_of(DataConfig()), tmp_path / "out")
    with pytest.raises(ValueError, match=r"pets: has .* in it already; choose an empty folder"):
        pack(recipe_of(config(folder)), folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="can't be written"):
        pack(recipe_of(config(folder)), tmp_path / "file" / "out")


def test_shards_can_be_packed_anew(folder: Path, tmp_path: Path) -> None:
    pack(recipe_of(config(folder)), tmp_path / "one", shard_megabytes=0.004)
    report = pack(recipe_of(config(tmp_path / "one", "shards")), tmp_path / "two")
    assert report.shards == {"train": 1, "val": 1}
    before = open_data(config(folder), seed=0)
    assert isinstance(before.train, FileImages)
    assert contents(open_data(config(tmp_path / "two", "shards"), seed=0).train) == contents(before.train)

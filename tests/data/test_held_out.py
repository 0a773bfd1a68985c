"""Which pictures are held out depends on their names alone, and stays what it was for a run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from odd_files import write_class_folders

from coco_files import coco_folder
from crosshead.data.base import ImageSet
from crosshead.data.datasets.fingerprint import describe_changes, fingerprint
from crosshead.data.datasets.held_out import Kept, name_digests, stratified_split
from crosshead.data.datasets.registry import open_splits
from crosshead.data.tools.pack import pack
from crosshead.recipe.schema import DataConfig
from map_files import map_folder
from opening import open_data, recipe_of


def folder(root: Path) -> DataConfig:
    write_class_folders(root, {"cat": 40, "dog": 40})
    return DataConfig(name="folder", root=str(root), validation=0.25)


def table(root: Path, column: str) -> DataConfig:
    write_class_folders(root, {"cat": 40, "dog": 40})
    files = sorted(file.relative_to(root) for file in root.rglob("*.png"))
    said = {"value": range(80), "label": ["cat", "dog"] * 40, "labels": ["cat;dog", "dog"] * 40}[column]
    rows = [f"{file},{word}" for file, word in zip(files, said, strict=True)]
    (root / "labels.csv").write_text("\n".join([f"path,{column}", *rows]))
    return DataConfig(name="csv", root=str(root), validation=0.25)


def names(images: ImageSet, root: str) -> set[str]:
    return {images.name(i).removeprefix(root + "/") for i in range(len(images))}


@pytest.mark.parametrize("kind", ["folder", "value", "label", "labels"])
def test_a_picture_less_moves_hardly_any_other_and_a_moved_folder_none(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "data"
    data = folder(root) if kind == "folder" else table(root, kind)
    before = open_data(data)
    held = names(before.validation, str(root))
    moved = root.rename(tmp_path / "elsewhere")
    there = data.model_copy(update={"root": str(moved)})
    assert names(open_data(there).validation, str(moved)) == held
    assert names(open_data(there, seed=1).validation, str(moved)) != held
    first = sorted(moved.rglob("*.png"))[0]
    first.unlink()
    if kind != "folder":
        lines = (moved / "labels.csv").read_text().split("\n")
        kept = [line for line in lines if not line.startswith(f"{first.relative_to(moved)},")]
        assert len(kept) == len(lines) - 1
        (moved / "labels.csv").write_text("\n".join(kept))
    now = open_data(there)
    assert len(now.train) + len(now.validation) == 79
    assert len(names(now.validation, str(moved)) - held) <= 1, "one may move up where the first was held out"


def test_maps_objects_and_shards_are_held_out_by_name_too(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "pets", {"cat": 12, "dog": 12})
    pack(recipe_of(DataConfig(name="folder", root=str(tmp_path / "pets"))), tmp_path / "shards")
    for file in (tmp_path / "shards").glob("val-*"):
        file.unlink()
    sets = {
        "map-folder": map_folder(tmp_path / "maps"),
        "coco-folder": coco_folder(tmp_path / "coco"),
        "shards": tmp_path / "shards",
    }
    for name, root in sets.items():
        data = DataConfig(name=name, root=str(root), validation=0.5)
        here = open_data(data)
        held = names(here.validation, str(root))
        whole = Kept.of(here.train, here.validation, str(root))
        copied = tmp_path / "another" / "place" / name
        shutil.copytree(root, copied)
        there = open_data(data.model_copy(update={"root": str(copied)}))
        assert here.held_out and names(there.validation, str(copied)) == held
        kept = open_splits(recipe_of(data, seed=5), whole)
        assert names(kept.validation, str(root)) == held, "a run's own stay where they were"


def test_digits_are_held_out_as_they_ever_were() -> None:
    """Published figures are of these pictures."""
    splits = open_data(DataConfig(validation=0.15), seed=0)
    found = [int(splits.validation.name(i)[7:-1]) for i in range(len(splits.validation))]
    assert (found[:6], len(found), sum(found)) == ([22, 27, 31, 34, 51, 63], 216, 194358)


def test_a_run_keeps_what_it_trained_on_and_only_new_pictures_are_dealt_out(tmp_path: Path) -> None:
    data = folder(tmp_path)
    before = open_data(data)
    kept = Kept.of(before.train, before.validation, data.root)
    held = names(before.validation, str(tmp_path))
    gone = sorted(held)[0]
    (tmp_path / gone).unlink()
    write_class_folders(tmp_path / "more", {"cat": 40})
    for file in (tmp_path / "more" / "cat").iterdir():
        file.rename(tmp_path / "cat" / f"new-{file.name}")
    shutil.rmtree(tmp_path / "more")
    now = open_splits(recipe_of(data), kept)
    held_now = names(now.validation, str(tmp_path))
    assert held - {gone} <= held_now and all("new-" in name for name in held_now - held)
    assert 0 < len(held_now - held) < 40
    after = kept.and_also(Kept.of(now.train, now.validation, data.root))
    again = open_splits(recipe_of(data, seed=9), after)
    assert names(again.validation, str(tmp_path)) == held_now
    trained = name_digests(now.train, data.root)
    assert after.trained(trained).all() and not after.trained(name_digests(now.validation, data.root)).any()


def test_none_of_a_runs_validation_pictures_left_is_said(tmp_path: Path) -> None:
    data = folder(tmp_path)
    before = open_data(data)
    kept = Kept.of(before.train, before.validation, data.root)
    for name in names(before.validation, str(tmp_path)):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="no picture is there any more that this run has validated on"):
        open_splits(recipe_of(data), kept)


def test_a_split_by_place_is_what_it_was(tmp_path: Path) -> None:
    data = folder(tmp_path)
    found = open_splits(recipe_of(data, seed=3), by_place=True)
    every = sorted(tmp_path.rglob("*.png"))
    _, held = stratified_split([0] * 40 + [1] * 40, 0.25, purpose="validation split", seed=3)
    assert names(found.validation, str(tmp_path)) == {str(every[i].relative_to(tmp_path)) for i in held}


@pytest.mark.parametrize("column", ["value", "label", "labels"])
def test_other_labels_are_other_data(tmp_path: Path, column: str) -> None:
    data = table(tmp_path, column)
    before = fingerprint(open_data(data), data.root)
    text = (tmp_path / "labels.csv").read_text()
    other = {"value": (",1\n", ",100\n"), "label": ("png,cat", "png,dog"), "labels": ("cat;dog", "cat")}
    (tmp_path / "labels.csv").write_text(text.replace(*other[column], 3))
    now = fingerprint(open_data(data), data.root)
    assert describe_changes(before, now) and not describe_changes(now, now)
    older = {part: {k: v for k, v in each.items() if k != "targets"} for part, each in now.items()}
    assert not describe_changes(older, now), "what a checkpoint of before does not say has not changed"


def test_digests_are_of_names_below_the_root(tmp_path: Path) -> None:
    data = folder(tmp_path)
    images = open_data(data).train
    found = name_digests(images, data.root)
    assert found.dtype == np.int64 and len(set(found.tolist())) == len(images)

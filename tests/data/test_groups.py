"""What belongs together lies on one side of every split, and folds part the training pictures."""

from collections import Counter

import numpy as np
import pytest
from odd_files import write_class_folders

from coco_files import coco_folder
from crosshead.data.datasets.groups import deal
from crosshead.data.datasets.held_out import Kept
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe.schema import DataConfig
from opening import open_data, recipe_of


def names(images, root):
    return [images.name(i).removeprefix(f"{root}/") for i in range(len(images))]


def patients(tmp_path, **more):
    """Two classes of pictures of 12 patients, from one to six of each, three patients with both classes."""
    write_class_folders(tmp_path / "made", {"cat": 30, "dog": 30})
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for number, file in enumerate(sorted((tmp_path / "made" / kind).iterdir())):
            patient = (number * number) % 17 % 12
            file.rename(tmp_path / kind / f"p{patient}_{number}.png")
        (tmp_path / "made" / kind).rmdir()
    (tmp_path / "made").rmdir()
    return DataConfig(name="folder", root=str(tmp_path), groups=r"/(p\d+)_", **more)


def group(name):
    return name.rpartition("/")[2].partition("_")[0]


def test_groups_are_held_out_whole_and_by_seed(tmp_path):
    data = patients(tmp_path, validation=0.3)
    held = []
    for seed in range(4):
        splits = open_data(data, seed=seed)
        train, validation = (names(part, tmp_path) for part in (splits.train, splits.validation))
        assert len(train) + len(validation) == 60
        assert not {*map(group, train)} & {*map(group, validation)}
        assert 0.1 < len(validation) / 60 < 0.5 and {name[:3] for name in validation} == {"cat", "dog"}
        held.append(frozenset(validation))
    assert len(set(held)) > 1 and names(open_data(data, seed=0).validation, tmp_path) == sorted(held[0])


def test_a_table_says_the_same_as_an_expression(tmp_path):
    data = patients(tmp_path)
    splits = open_data(data)
    every = [*names(splits.train, tmp_path), *names(splits.validation, tmp_path)]
    (tmp_path / "who.csv").write_text("\n".join(["path,group", *(f"{each},{group(each)}" for each in every)]))
    tabled = data.model_copy(update={"groups": "who.csv"})
    assert names(open_data(tabled).validation, tmp_path) == names(splits.validation, tmp_path)
    (tmp_path / "who.csv").write_text(f"path,group\n{every[0]},a")
    with pytest.raises(ValueError, match=r"who\.csv has no group of .* and 58 more"):
        open_data(tabled)
    with pytest.raises(ValueError, match=r"finds no group in 'cat/p.*expected an expression that matches"):
        open_data(data.model_copy(update={"groups": r"flight(\d)"}))


@pytest.mark.parametrize("grouped", [True, False])
def test_folds_part_all_pictures_and_keep_classes_and_groups(tmp_path, grouped):
    data = patients(tmp_path, validation=0.3, folds=4)
    data = data if grouped else data.model_copy(update={"groups": None})
    tested = []
    for fold in range(4):
        splits = open_data(data.model_copy(update={"fold": fold}))
        parts = {name: names(images, tmp_path) for name, images in splits.parts().items()}
        assert sum(map(len, parts.values())) == 60 == len(set().union(*parts.values()))
        if grouped:
            assert max(Counter(g for part in parts.values() for g in {*map(group, part)}).values()) == 1
        else:
            assert Counter(name[:3] for name in parts["test"]) in ({"cat": 7, "dog": 8}, {"cat": 8, "dog": 7})
        assert f"fold {fold} (of 0 to 3)" in splits.origin("test")
        tested += parts["test"]
    assert len(tested) == 60 == len(set(tested))


def test_objects_are_dealt_too_and_a_digits_test_split_is_left_alone(tmp_path):
    root = coco_folder(tmp_path / "coco")
    data = DataConfig(name="coco-folder", root=str(root), validation=0.5, folds=2)
    count = len(open_data(data.model_copy(update={"folds": None})).train)
    splits = [open_data(data.model_copy(update={"fold": fold})) for fold in (0, 1)]
    assert not {*names(splits[0].test, root)} & {*names(splits[1].test, root)} and count
    digits = [open_data(DataConfig(folds=5, fold=fold)) for fold in range(5)]
    assert sum(len(each.test) for each in digits) == 1438, "of the training digits, none of the 359 to test"
    assert "own test pictures are left alone" in digits[0].origin("test")


def test_a_run_that_goes_on_keeps_its_fold_and_a_patients_new_pictures_stay_with_the_patient(tmp_path):
    data = patients(tmp_path, validation=0.3, folds=3, fold=1)
    before = open_data(data)
    kept = Kept.of(before.train, before.validation, data.root)
    sides = {group(name): part for part, images in before.parts().items() for name in names(images, tmp_path)}
    for patient in (next(p for p, side in sides.items() if side == "train"), "p99"):
        some = sorted((tmp_path / "cat").iterdir())[0]
        (tmp_path / "cat" / f"{patient}_new.png").write_bytes(some.read_bytes())
    now = open_splits(recipe_of(data, seed=7), kept)
    assert {*names(before.train, tmp_path)} == {*names(now.train, tmp_path)}
    assert {*names(before.validation, tmp_path)} == {*names(now.validation, tmp_path)}
    new = {*names(now.test, tmp_path)} - {*names(before.test, tmp_path)}
    assert len(new) == 2 and all("_new" in name for name in new), "what is new is never learned from"


def test_groups_in_two_splits_of_the_data_are_told(tmp_path):
    write_class_folders(tmp_path / "train", {"cat": 6, "dog": 6})
    write_class_folders(tmp_path / "val", {"cat": 3, "dog": 3})
    data = DataConfig(name="folder", root=str(tmp_path), groups=r"(\d+)\.\w+$")
    note = "groups (data.groups) have pictures in train and validation"
    assert any(note in each for each in open_data(data).notes)


def test_dealing_is_even_and_refuses_what_it_cannot_do():
    labels = [0] * 13 + [1] * 7
    dealt = deal(5, purpose="x", seed=0, ids=np.arange(20), labels=labels)
    assert [*np.bincount(dealt)] == [4] * 5
    for label in (0, 1):
        counts = np.bincount(dealt[np.array(labels) == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    with pytest.raises(ValueError, match=r"there are 2 groups .* and 5 parts"):
        deal(5, purpose="x", seed=0, ids=np.arange(20), groups=["a", "b"] * 10)
    with pytest.raises(ValueError, match=r"data.fold is 2 and data.folds 2: expected one of 0 to folds - 1"):
        DataConfig(folds=2, fold=2)
    with pytest.raises(ValueError, match="expected a regular expression"):
        DataConfig(groups="(")

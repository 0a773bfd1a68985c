"""What can't be learned from or judged by is refused before training; what lacks examples is told."""

import json

import numpy as np
import pytest
from PIL import Image
from runs import Watcher, tiny_recipe
from test_listed_tasks import PLAIN, pictures, table

from crosshead.cli import main
from crosshead.data.datasets import contents as looking
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe.schema import Recipe
from crosshead.tasks import open_task
from crosshead.train import train
from crosshead.train.precheck import check_contents


def recipe_of(task, root, name, **more):
    small = dict(depths=[1, 1, 1], dims=[8, 12, 16], num_heads=[1, 2, 2], attention_stages=[2], landmarks=2)
    retinanet = {"name": "retinanet", "pyramid": {"width": 8}}
    model = {
        "segment": {"segmenter": {"name": "linear"}},
        "detect": {"name": "ivit_tiny", "args": small, "detector": retinanet},
    }
    augment = {**PLAIN, "crop_scale": None}
    data = {"name": name, "root": str(root), "image_size": 32, "batch_size": 2}
    settings = {"name": task} | more
    return Recipe.model_validate(
        {"model": model.get(task, {}), "data": data, "augment": augment, "task": settings}
    )


def notes(recipe):
    splits = open_splits(recipe)
    return check_contents(open_task(recipe, splits.info), splits)


def map_folder(root, draw, names=("background", "a", "b"), count=6):
    noise = np.random.default_rng(0)
    for split, number in (("train", count), ("val", 2)):
        for i in range(number):
            for kind, pixels in (
                ("images", noise.integers(0, 255, (16, 16, 3), np.uint8)),
                ("maps", draw(split, i)),
            ):
                folder = root / kind / split
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    return recipe_of("segment", root, "map-folder")


def of(*numbers):
    return np.resize(np.array(numbers), (16, 16))


def test_maps_drawn_in_0_and_255_are_refused_with_what_to_do(tmp_path, monkeypatch):
    recipe = map_folder(tmp_path, lambda split, i: of(0, 255), ("background", "lesion"))
    with pytest.raises(ValueError, match=r"pixels of one class alone.*255 is no class here.*Write 1 where"):
        notes(recipe)
    monkeypatch.setattr(looking, "LOOKED", 3)  # of more maps than are looked at: told, and the run goes on
    assert any("255 is no class here" in note for note in notes(recipe))
    report = looking.contents(open_splits(recipe).train, 2)
    assert report.looked == 3 and not report.whole


def test_data_check_gives_the_same_hint(tmp_path, capsys):
    map_folder(tmp_path, lambda split, i: of(0, 255) if split == "train" else of(0, 1))
    assert main(["data", "check", "map-folder", "--data-path", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "train: the maps hold 0 and 255 alone" in said and "validation: the maps" not in said


def test_maps_without_a_class_are_refused(tmp_path):
    with pytest.raises(ValueError, match="training: the 6 pictures have no pixel of any class"):
        notes(map_folder(tmp_path / "all", lambda split, i: of(255)))
    only = map_folder(tmp_path / "val", lambda split, i: of(0, 1, 2) if split == "train" else of(255))
    with pytest.raises(
        ValueError, match=r"validation: .*no pixel that has a class, so that mIoU is undefined"
    ):
        notes(only)


def test_classes_without_a_pixel_are_named(tmp_path):
    recipe = map_folder(tmp_path, lambda split, i: of(0, 1) if split == "train" else of(0, 2))
    assert notes(recipe) == (
        "training: the 6 pictures have no pixel of class b: nothing is learned of it",
        "validation: the 2 pictures have no pixel of class a: nothing is judged of it",
    )


def coco(root, change=lambda files: None, each=1, **task):
    """``each`` objects of 16 x 16 pixels in each of 4 and 2 pictures."""
    files = {}
    for split, count in (("train", 4), ("val", 2)):
        (root / split).mkdir(parents=True)
        images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(count)]
        for i in range(count):
            Image.new("RGB", (64, 64)).save(root / split / f"{i}.png")
        files[split] = {
            "images": images,
            "categories": [{"id": 1, "name": "thing"}, {"id": 2, "name": "other"}],
            "annotations": [
                dict(id=i * each + k, image_id=i, category_id=1, bbox=[k % 40, 8, 16, 16], area=256, iscrowd=0)
                for i in range(count)
                for k in range(each)
            ],
        }  # fmt: skip
    change(files)
    for split, content in files.items():
        (root / f"{split}.json").write_text(json.dumps(content))
    return recipe_of("detect", root, "coco-folder", **task)


def crowds(files):
    for each in files["train"]["annotations"]:
        each["iscrowd"] = 1


def test_no_object_to_learn_from_or_to_judge_by_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="no object of any class, crowds left out: there is nothing to learn"
    ):
        notes(coco(tmp_path / "crowds", crowds))
    with pytest.raises(ValueError, match=r"no object of any class"):
        notes(coco(tmp_path / "none", lambda files: files["train"].update(annotations=[])))
    empty = coco(tmp_path / "val", lambda files: files["val"].update(annotations=[]))
    with pytest.raises(ValueError, match=r"no object .*box AP is undefined there.*task\.select_by"):
        notes(empty)
    with pytest.raises(ValueError, match=r"no large object .*box APl is undefined"):
        notes(coco(tmp_path / "large", select_by="box_apl"))


def test_a_category_that_no_object_has_and_more_objects_than_are_judged_are_told(tmp_path):
    said = notes(coco(tmp_path / "data", each=120))
    assert any(note.startswith("training: the 4 pictures have no object of class other") for note in said)
    assert any("up to 120 objects" in note and "task.max_detections=120" in note for note in said)
    wide = coco(tmp_path / "wide", each=120, max_detections=150)
    assert not any("max_detections" in note for note in notes(wide))
    task = open_task(wide, open_splits(wide).info)
    assert task.build_model().max_detections == 150 and task.evaluation().max_detections == 150


def listed(root, task, column, validation, **more):
    rows = pictures(root, 8)
    values = ["red;bright", "red", "bright", "red"] if column == "labels" else ["1", "2", "3", "4"]
    values += validation
    splits = ["train"] * 4 + ["val"] * len(validation)
    chosen = zip(rows[: len(values)], splits, values, strict=True)
    table(root, [{"path": row["path"], "split": s, column: value} for row, s, value in chosen])
    return recipe_of(task, root, "csv", **more)


def test_a_metric_that_validation_does_not_define_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no two numbers that differ, so that R² is undefined"):
        notes(listed(tmp_path / "one", "regress", "value", ["5"], select_by="r2"))
    assert notes(listed(tmp_path / "mae", "regress", "value", ["5"])) == ()
    file = tmp_path / "mae" / "labels.csv"
    for numbers, words in (
        ("1111", "one and the same number"),
        (("1e300", "-1e300", "0", "1"), "too far apart"),
    ):
        rows = [row.split(",") for row in file.read_text().splitlines()]
        at = rows[0].index("value")
        for row, number in zip(rows[1:], numbers, strict=False):
            row[at] = number
        file.write_text("\n".join(map(",".join, rows)) + "\n")
        with pytest.raises(ValueError, match=words):
            notes(recipe_of("regress", tmp_path / "mae", "csv"))
    with pytest.raises(ValueError, match=r"no label, so that mean average precision is undefined"):
        notes(listed(tmp_path / "labels", "multilabel", "labels", ["", ""]))
    some = listed(tmp_path / "some", "multilabel", "labels", ["red"])
    assert notes(some) == (
        "validation: the 1 pictures have no picture of class bright: nothing is judged of it",
    )


def test_training_tells_which_class_has_nothing(tmp_path, few_pictures):
    root = tmp_path / "data"
    for split in ("train", "val", "test"):
        for name in ("class0", "class1"):
            (root / split / name).mkdir(parents=True)
            for picture in sorted((tmp_path.__class__(few_pictures["root"]) / split / name).iterdir())[:12]:
                (root / split / name / picture.name).write_bytes(picture.read_bytes())
    for picture in (root / "val" / "class1").iterdir():
        picture.unlink()
    recipe = tiny_recipe(data={**few_pictures, "root": str(root)}, train={"epochs": 2})
    watcher = Watcher()
    train(recipe, folder=tmp_path / "run", callback=watcher)
    told = [event.message for event in watcher.events if event.kind == "data"]
    assert any("have no picture of class class1: nothing is judged of it" in message for message in told)


def test_sets_that_make_their_targets_with_the_pictures_are_not_looked_at():

    recipe = Recipe.model_validate({"data": {"name": "scenes"}})
    assert looking.contents(open_splits(recipe).validation, 10) is None


def test_a_test_split_is_looked_at_and_decides_nothing(tmp_path):
    splits, labels = (
        ["train", "train", "val", "val", "test", "test"],
        ["red", "bright", "red", "bright", "", ""],
    )
    rows = pictures(tmp_path / "data", 6)
    chosen = zip(rows, splits, labels, strict=True)
    table(tmp_path / "data", [{"path": r["path"], "split": s, "labels": each} for r, s, each in chosen])
    assert notes(recipe_of("multilabel", tmp_path / "data", "csv")) == (
        "test: the 2 pictures have no label, so that mean average precision is undefined there",
    )

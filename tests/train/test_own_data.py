"""A run goes on with its own data: no picture changes sides, and its numbers mean what they meant."""

import csv
import json
import shutil

import pytest
from runs import StopAfter, Watcher, tiny_recipe

from crosshead.data.datasets.held_out import Kept, name_digests
from crosshead.train import evaluate_run, load_run, train
from crosshead.train.checkpoint.memory import PICTURES_FILE, read_pictures
from crosshead.train.checkpoint.store import CheckpointStore, read_state
from data.odd_files import write_class_folders

SHORT = {"epochs": 3, "ema_decay": None, "seed": 3}


def pets(root, *, split=None, name="folder", **changes):
    data = {"name": name, "root": str(root), "validation": 0.25, "batch_size": 6, "split_seed": 7}
    return tiny_recipe(data=data, train=SHORT, **changes)


@pytest.fixture
def stopped(tmp_path):
    write_class_folders(tmp_path / "pets", {"cat": 24, "dog": 24})
    train(pets(tmp_path / "pets"), folder=tmp_path / "run", callback=StopAfter(3))
    return tmp_path / "run"


def held(folder, root):
    images = load_run(folder, checkpoint="last").open_data().validation
    return {images.name(i).removeprefix(f"{root}/") for i in range(len(images))}


def test_no_picture_changes_sides_where_some_are_removed(stopped, tmp_path):
    root = tmp_path / "pets"
    before = held(stopped, root)
    trained = sorted(p for p in root.rglob("*.png") if str(p.relative_to(root)) not in before)
    trained[0].unlink()
    (root / sorted(before)[0]).unlink()
    watcher = Watcher()
    result = train(pets(root), folder=stopped, resume=True, callback=watcher)
    assert result.status == "finished" and "data_changed" in watcher.kinds()
    assert held(stopped, root) == before - {sorted(before)[0]}
    assert evaluate_run(stopped, split="validation")["count"] == len(before) - 1


def test_a_split_that_would_judge_on_trained_pictures_is_refused(stopped, tmp_path):
    """Here by a table, whose rows were moved from one split to the other."""
    root = tmp_path / "pets"
    files = sorted(str(file.relative_to(root)) for file in root.rglob("*.png"))
    splits = (["val"] + 3 * ["train"]) * 12

    def write(splits):
        rows = [f"{file},{split},{file[:3]}" for file, split in zip(files, splits, strict=True)]
        (root / "labels.csv").write_text("\n".join(["path,split,label", *rows]))

    write(splits)
    recipe = pets(root, name="csv")
    train(recipe, folder=tmp_path / "table", callback=StopAfter(3))
    write(["val", "val", *splits[2:]])
    with pytest.raises(ValueError, match=rf"{files[1]} would be judged on \(validation\), and this run has"):
        train(recipe, folder=tmp_path / "table", resume=True)
    write([*splits[:-1], "val"])
    with pytest.raises(ValueError, match=f"{files[-1]} would be judged on"):
        train(recipe, folder=tmp_path / "table", resume=True)
    write(splits)
    assert train(recipe, folder=tmp_path / "table", resume=True).status == "finished"


def test_a_run_of_before_keeps_its_split_by_place_and_refuses_other_pictures(tmp_path, monkeypatch):
    from crosshead.train import prepare
    from crosshead.train.checkpoint import memory

    root, folder = tmp_path / "pets", tmp_path / "run"
    write_class_folders(root, {"cat": 24, "dog": 24})
    with monkeypatch.context() as patch:  # as before: by place, and nothing kept
        opened = memory.open_splits
        patch.setattr(memory, "open_splits", lambda recipe, *_, **__: opened(recipe, by_place=True))
        patch.setattr(prepare, "write_pictures", lambda *_: None)
        train(pets(root), folder=folder, callback=StopAfter(3))
    assert not (folder / PICTURES_FILE).exists()
    before = held(folder, root)
    copy = shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    gone = next(file for file in sorted(root.rglob("*.png")) if str(file.relative_to(root)) not in before)
    content = gone.read_bytes()
    gone.unlink()
    with pytest.raises(
        ValueError, match="other train pictures than at the checkpoint, and this run has no list"
    ):
        train(pets(root), folder=folder, resume=True)
    gone.write_bytes(content)
    watcher = Watcher()
    assert train(pets(root), folder=copy, resume=True, callback=watcher).status == "finished"
    assert "data_changed" not in watcher.kinds() and held(copy, root) == before
    assert read_pictures(copy) is not None, "from here on by name"


def test_a_damaged_list_of_pictures_is_written_anew(stopped, tmp_path):
    before, kept = held(stopped, tmp_path / "pets"), read_pictures(stopped)
    (stopped / PICTURES_FILE).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"is damaged .* resuming the run writes it anew"):
        held(stopped, tmp_path / "pets")
    assert train(pets(tmp_path / "pets"), folder=stopped, resume=True).status == "finished"
    assert held(stopped, tmp_path / "pets") == before
    assert read_pictures(stopped).validation.tolist() == kept.validation.tolist()


def test_what_heads_are_measured_on_was_held_out(stopped, tmp_path):
    data = load_run(stopped, checkpoint="last").open_data()
    kept = read_pictures(stopped)
    root = str(tmp_path / "pets")
    assert Kept.of(data.train, data.validation, root).train.tolist() == kept.train.tolist()
    assert not kept.trained(name_digests(data.validation, root)).any()


def numbers(root, scale, shift):
    files = sorted(str(file.relative_to(root)) for file in root.rglob("*.png"))
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "value"])
        for place, name in enumerate(files):
            writer.writerow([name, ("train", "train", "val", "test")[place % 4], shift + scale * (place % 7)])


def test_a_regression_goes_on_in_the_scale_that_it_learned(stopped, tmp_path):
    root, folder = tmp_path / "pets", tmp_path / "numbers"
    numbers(root, 1.0, 20.0)
    recipe = pets(root, name="csv", task={"name": "regress"}, augment={"mixup": 0.0, "cutmix": 0.0})
    train(recipe, folder=folder, callback=StopAfter(3))
    before = json.loads((folder / "classes.json").read_text())["scale"]
    there = evaluate_run(folder, checkpoint="last")["mae"]
    numbers(root, 100.0, 2000.0)
    watcher = Watcher()
    train(recipe, folder=folder, resume=True, callback=watcher)
    said = [event.message for event in watcher.events if event.kind == "data_changed"]
    assert any("with other labels" in message for message in said)
    assert any("the run goes on in the scale of then" in message for message in said)
    assert json.loads((folder / "classes.json").read_text())["scale"] == before
    state = read_state(CheckpointStore(folder).newest_good()[0])
    assert state["info"]["scale"] == before
    numbers(root, 1.0, 20.0)
    assert load_run(folder).info.scale == tuple(before)
    assert evaluate_run(folder, checkpoint="2")["mae"] == pytest.approx(there, abs=5.0)


def test_a_class_with_one_picture_left_goes_on(stopped, tmp_path):
    root = tmp_path / "pets"
    before = held(stopped, root)
    for file in sorted((root / "dog").iterdir()):
        name = str(file.relative_to(root))
        if name not in before or name != max(each for each in before if each.startswith("dog")):
            file.unlink()
    assert train(pets(root), folder=stopped, resume=True).status == "finished"
    assert held(stopped, root) == {n for n in before if (root / n).exists()}

"""Images that cannot be read are left out, named and counted, and change nothing else."""

import json

import numpy as np
import pytest
from PIL import Image
from runs import StopAfter, Watcher, assert_same_ending, start, tiny_recipe, wait

from crosshead.data.decode.images import BrokenImage
from crosshead.tasks import ClassifyTask
from crosshead.train import train


def image_folder(root, broken=()):
    """2 classes of 30 training and 6 validation images of noise."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 30), ("val", 6)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                path = root / split / name / f"{number:02}.png"
                Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
                if f"{split}/{name}/{number:02}" in broken:
                    path.write_bytes(path.read_bytes()[:60])
    return root


def folder_recipe(root, **data):
    data = {"name": "folder", "root": str(root), "batch_size": 10, "validation": 0.0, **data}
    return tiny_recipe(
        data=data, augment={"mixup": 0.0, "cutmix": 0.0}, train={"epochs": 2, "accumulation_steps": 1}
    )


BROKEN = ("train/cat/03", "train/dog/07", "train/dog/11")


def seen_by(recipe, folder, monkeypatch):
    """The indices of every batch, and the run's events."""
    seen, original = [], ClassifyTask.loss

    def loss(task, predictions, batch):
        seen.append(batch.index.tolist())
        return original(task, predictions, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ClassifyTask, "loss", loss)
        watcher = Watcher()
        result = train(recipe, folder=folder, callback=watcher)
    return seen, watcher, result


def test_broken_images_are_named_once_counted_and_change_no_other(tmp_path, monkeypatch):
    whole = folder_recipe(image_folder(tmp_path / "whole"))
    hurt = folder_recipe(image_folder(tmp_path / "hurt", BROKEN))
    seen, _, _ = seen_by(whole, tmp_path / "run-whole", monkeypatch)
    seen_hurt, watcher, result = seen_by(hurt, tmp_path / "run-hurt", monkeypatch)
    missing = {
        index for batch, other in zip(seen, seen_hurt, strict=True) for index in set(batch) - set(other)
    }
    assert len(missing) == 3
    assert seen_hurt == [[index for index in batch if index not in missing] for batch in seen]
    events = [event for event in watcher.events if event.kind == "broken_image"]
    named = sorted(event.details["image"] for event in events)
    assert named == [str(tmp_path / "hurt" / f"{name}.png") for name in BROKEN]
    assert all(event.details["reason"] for event in events)
    assert result.broken_images == 3


def test_a_batch_of_nothing_but_broken_images_does_not_stop_training(tmp_path, monkeypatch):
    broken = [f"train/{name}/{number:02}" for name in ("cat", "dog") for number in range(30) if number % 3]
    recipe = folder_recipe(image_folder(tmp_path / "data", broken), batch_size=2)
    seen, _, result = seen_by(recipe, tmp_path / "run", monkeypatch)
    assert result.status == "finished" and result.broken_images == 40
    assert sum(map(len, seen)) == 2 * 20
    assert [] in seen, "some batches were empty"


def test_more_broken_images_than_the_limit_end_the_run(tmp_path):
    recipe = folder_recipe(image_folder(tmp_path / "data", BROKEN), max_broken=2)
    with pytest.raises(ValueError, match=r"3 .* data\.max_broken"):
        train(recipe, folder=tmp_path / "run")


def test_failing_at_the_first_broken_image_when_asked(tmp_path):
    recipe = folder_recipe(image_folder(tmp_path / "data", BROKEN), on_broken_train="fail")
    with pytest.raises(BrokenImage) as first:
        train(recipe, folder=tmp_path / "run")
    assert first.value.name in [str(tmp_path / "data" / f"{name}.png") for name in BROKEN]


def test_a_broken_validation_image_ends_the_run_and_is_named(tmp_path):
    recipe = folder_recipe(image_folder(tmp_path / "data", ("val/cat/02",)))
    with pytest.raises(BrokenImage, match=r"val/cat/02\.png"):
        train(recipe, folder=tmp_path / "run")


def test_two_processes_with_broken_images_resume_exactly_and_name_each_image_once(tmp_path):
    recipe = folder_recipe(image_folder(tmp_path / "data", BROKEN), batch_size=5)
    assert wait(start(recipe, tmp_path / "whole", resume=False, processes=2)) == [0, 0]
    lines = [json.loads(line) for line in (tmp_path / "whole" / "events.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines].count("broken_image") == 3
    group = start(recipe, tmp_path / "run", resume=False, processes=2, callback=StopAfter(4))
    assert wait(group) == [75, 75]
    assert wait(start(recipe, tmp_path / "run", resume=True, processes=2)) == [0, 0]
    assert_same_ending(tmp_path / "run", tmp_path / "whole")

"""What goes wrong in an evaluation costs the evaluation, not the epoch before it."""

import pytest
from runs import Watcher, assert_same_ending, tiny_recipe
from test_broken_images import folder_recipe, image_folder

from crosshead.data.decode.images import BrokenImage
from crosshead.tasks import ClassifyTask
from crosshead.train import evaluate_run, train
from crosshead.train.checkpoint.store import CheckpointStore


@pytest.mark.parametrize("epoch", [1, 3], ids=["the first", "the last"])
def test_an_evaluation_that_fails_costs_no_step(tmp_path, unstopped, monkeypatch, epoch):
    folder, original, calls = tmp_path / "run", ClassifyTask.evaluation, []

    def failing(task):
        calls.append(1)
        if len(calls) == epoch:
            raise MemoryError("the evaluation fails")
        return original(task)

    recipe = tiny_recipe(checkpoint={"every_steps": None})
    with monkeypatch.context() as patch:
        patch.setattr(ClassifyTask, "evaluation", failing)
        watcher = Watcher()
        with pytest.raises(MemoryError):
            train(recipe, folder=folder, callback=watcher)
    assert CheckpointStore(folder).steps()[-1] == 6 * epoch
    assert watcher.kinds()[-1] == "checkpoint", "what was written is on record"
    watcher = Watcher()
    train(recipe, folder=folder, resume=True, callback=watcher)
    assert watcher.info.start_step == 6 * epoch
    assert_same_ending(folder, unstopped)


def test_a_broken_validation_picture_costs_no_step_and_is_passed_over_when_asked(tmp_path):
    folder = tmp_path / "run"
    root = image_folder(tmp_path / "data", ("val/cat/02",))
    with pytest.raises(BrokenImage, match=r"val/cat/02\.png"):
        train(folder_recipe(root), folder=folder)
    assert CheckpointStore(folder).steps()[-1] == 6
    watcher = Watcher()
    result = train(folder_recipe(root, on_broken_eval="skip"), folder=folder, resume=True, callback=watcher)
    assert watcher.info.start_step == 6 and result.validation["skipped"] == 1
    named = [event for event in watcher.events if event.kind == "broken_image"]
    assert [event.details["image"] for event in named] == [str(root / "val/cat/02.png")]
    assert "of the validation split" in named[0].message and named[0].details["reason"]


def test_in_a_validation_split_that_was_held_out_of_training_broken_pictures_follow_the_training_policy(
    tmp_path,
):
    root = image_folder(tmp_path / "data", [f"train/cat/{number:02}" for number in range(0, 30, 3)])
    (root / "val").rename(tmp_path / "elsewhere")
    result = train(folder_recipe(root, validation=0.5), folder=tmp_path / "run")
    assert result.status == "finished" and result.validation["skipped"] > 0
    assert evaluate_run(tmp_path / "run", split="validation") == result.validation
    with pytest.raises(BrokenImage, match=r"data\.on_broken_train=skip"):
        evaluated = folder_recipe(root, validation=0.5, on_broken_train="fail")
        train(evaluated, folder=tmp_path / "strict")

"""A run that is stopped and resumed ends as if it had never been stopped, bit for bit."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
from runs import StopAfter, Watcher, assert_same_ending, ending, tiny_recipe

from crosshead.data.datasets.registry import open_splits
from crosshead.tasks import ClassifyTask
from crosshead.train import StepRecord, train
from crosshead.train.checkpoint.store import CheckpointStore
from crosshead.train.events import RESULT_FILE


@pytest.mark.parametrize("step", [1, 5, 14])
def test_a_run_that_is_stopped_at_a_step_and_resumed_ends_the_same(tmp_path, unstopped, step):
    folder = tmp_path / "run"
    stopped = train(tiny_recipe(), folder=folder, callback=StopAfter(step))
    assert (stopped.status, stopped.step, stopped.test, stopped.exit_code) == ("stopped", step + 1, {}, 75)
    watcher = Watcher()
    assert train(tiny_recipe(), folder=folder, resume=True, callback=watcher).status == "finished"
    steps = [record.step for record in watcher.records if isinstance(record, StepRecord)]
    assert steps == [*range(step + 2, 19)]
    assert_same_ending(folder, unstopped)


class Witness:
    """Records which images the loss sees, and sends a SIGTERM at one of its calls."""

    def __init__(self, monkeypatch, stop_at=None):
        self.seen, self.calls, self.stop_at = [], 0, stop_at
        original = ClassifyTask.loss

        def loss(task, predictions, batch):
            self.calls += 1
            self.seen.append(tuple(batch.index.tolist()))
            if self.calls == self.stop_at:
                signal.raise_signal(signal.SIGTERM)
            return original(task, predictions, batch)

        monkeypatch.setattr(ClassifyTask, "loss", loss)


@pytest.fixture(scope="module")
def seen_unstopped(tmp_path_factory):
    """The images of every batch of a run that is not stopped."""
    with pytest.MonkeyPatch.context() as patch:
        witness = Witness(patch)
        train(tiny_recipe(), folder=tmp_path_factory.mktemp("seen") / "run")
    return witness.seen


@pytest.mark.parametrize("call", [9, 10])
def test_a_stop_in_the_middle_of_accumulation_neither_repeats_nor_skips_an_image(
    tmp_path, unstopped, seen_unstopped, monkeypatch, call
):
    folder = tmp_path / "run"
    witness = Witness(monkeypatch, stop_at=call)
    assert train(tiny_recipe(), folder=folder).status == "stopped"
    assert witness.calls == call + call % 2  # the step is finished, and no further one is begun
    train(tiny_recipe(), folder=folder, resume=True)
    assert witness.seen == seen_unstopped
    epochs = [sum(seen_unstopped[start : start + 12], ()) for start in (0, 12, 24)]
    assert all(len(set(epoch)) == len(epoch) == 144 for epoch in epochs)
    assert_same_ending(folder, unstopped)


def test_the_number_of_loader_workers_changes_nothing(tmp_path, unstopped):
    folder = tmp_path / "run"
    recipe = tiny_recipe(data={"num_workers": 2}, train={"epochs": 3})
    train(recipe, folder=folder, callback=StopAfter(8))
    train(recipe, folder=folder, resume=True)
    assert_same_ending(folder, unstopped)


@pytest.mark.parametrize("epoch", [2, 3], ids=["in the middle", "the last"])
def test_a_stop_during_an_evaluation_repeats_the_evaluation(tmp_path, unstopped, monkeypatch, epoch):
    folder = tmp_path / "run"
    evaluation = ClassifyTask.evaluation
    signals = iter([None] * (epoch - 1) + [signal.SIGTERM])

    def interrupted(task):
        number = next(signals, None)
        if number is not None:
            signal.raise_signal(number)
        return evaluation(task)

    monkeypatch.setattr(ClassifyTask, "evaluation", interrupted)
    watcher = Watcher()
    stopped = train(tiny_recipe(), folder=folder, callback=watcher)
    assert (stopped.status, stopped.step) == ("stopped", 6 * epoch)
    assert "signal" in watcher.kinds()
    train(tiny_recipe(), folder=folder, resume=True)
    assert_same_ending(folder, unstopped)


def test_a_constant_rate_stays_what_it_is_when_the_run_was_stopped_in_the_warm_up(tmp_path):
    recipe = tiny_recipe(schedule={"name": "constant"})
    train(recipe, folder=tmp_path / "whole")
    train(recipe, folder=tmp_path / "run", callback=StopAfter(2))
    train(recipe, folder=tmp_path / "run", resume=True)
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_a_length_in_steps_ends_in_the_middle_of_an_epoch_and_resumes_exactly(tmp_path):
    recipe = tiny_recipe(schedule={"name": "poly", "warmup_steps": 2}, train={"steps": 8})
    assert train(recipe, folder=tmp_path / "whole").epoch == 8 / 6
    stopped = train(recipe, folder=tmp_path / "run", callback=StopAfter(4))
    assert (stopped.status, stopped.step) == ("stopped", 5)
    result = train(recipe, folder=tmp_path / "run", resume=True)
    assert (result.status, result.step, result.selected_step in (6, 8)) == ("finished", 8, True)
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_pictures_that_come_more_often_come_so_after_a_stop_too(tmp_path):
    sampled = {"sampling": "repeat_factor", "repeat_threshold": 0.5}
    recipe = tiny_recipe(data=sampled, train={"epochs": 2})
    train(recipe, folder=tmp_path / "whole")
    train(recipe, folder=tmp_path / "run", callback=StopAfter(4))
    train(recipe, folder=tmp_path / "run", resume=True)
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_fp16_with_its_loss_scale_resumes_exactly(tmp_path):
    recipe = tiny_recipe(train={"precision": "fp16", "epochs": 2})
    train(recipe, folder=tmp_path / "whole")
    train(recipe, folder=tmp_path / "run", callback=StopAfter(7))
    train(recipe, folder=tmp_path / "run", resume=True)
    assert ending(tmp_path / "whole")["scaler"]["scale"] > 1
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_resuming_a_finished_run_gives_its_result_and_tests_nothing_again(tmp_path, unstopped, monkeypatch):
    witness = Witness(monkeypatch)
    watcher = Watcher()
    result = train(tiny_recipe(), folder=unstopped, resume=True, callback=watcher)
    assert result.status == "finished" and result.test == ending(unstopped)["test"]
    assert witness.calls == 0 and not watcher.records
    assert "is finished" in watcher.end.message and watcher.end.result == result


def test_a_run_that_was_killed_between_its_test_and_its_result_is_tested_again_and_logs_it_once(
    tmp_path, unstopped
):
    folder = tmp_path / "run"
    shutil.copytree(unstopped, folder, symlinks=True)
    (folder / RESULT_FILE).unlink()
    train(tiny_recipe(), folder=folder, resume=True)
    assert_same_ending(folder, unstopped)


def test_resuming_where_nothing_was_saved_starts_from_the_beginning_and_says_so(tmp_path, unstopped):
    watcher = Watcher()
    train(tiny_recipe(), folder=tmp_path / "run", resume=True, callback=watcher)
    assert [event.message for event in watcher.events if event.kind == "resume"] == [
        f"no checkpoint in {tmp_path / 'run'}: starting from the beginning"
    ]
    assert_same_ending(tmp_path / "run", unstopped)


def test_going_back_to_a_named_checkpoint_leaves_the_later_ones_aside(tmp_path, unstopped):
    folder = tmp_path / "run"
    recipe = tiny_recipe(checkpoint={"every_steps": 2, "keep_last": 9})
    train(recipe, folder=folder)
    early = CheckpointStore(folder).path(8)
    watcher = Watcher()
    train(recipe, folder=folder, resume=early, callback=watcher)
    assert any("going back to step 8" in event.message for event in watcher.events)
    assert list((folder / "checkpoints").glob("*.abandoned"))
    assert_same_ending(folder, unstopped)


def test_a_checkpoint_can_start_a_run_in_another_folder(tmp_path, unstopped):
    source, target = tmp_path / "source", tmp_path / "target"
    train(tiny_recipe(), folder=source, callback=StopAfter(9))
    before = sorted(path.name for path in (source / "checkpoints").iterdir())
    train(tiny_recipe(), folder=target, resume=source)
    assert sorted(path.name for path in (source / "checkpoints").iterdir()) == before
    first, second = ending(target), ending(unstopped)
    for part in ("tensors", "selected", "validation", "test"):
        assert first[part] == second[part]


def test_a_damaged_best_checkpoint_is_named_and_the_best_chosen_anew(tmp_path):
    folder = tmp_path / "run"
    train(tiny_recipe(), folder=folder, callback=StopAfter(9))
    (folder / "best" / "model.safetensors").write_bytes(b"")
    watcher = Watcher()
    result = train(tiny_recipe(), folder=folder, resume=True, callback=watcher)
    assert any("the best is chosen anew" in event.message for event in watcher.events)
    assert result.selected_step > 10 and result.weights is not None


def test_a_changed_recipe_is_named_when_it_is_resumed(tmp_path):
    folder = tmp_path / "run"
    train(tiny_recipe(), folder=folder, callback=StopAfter(3))
    watcher = Watcher()
    train(tiny_recipe(optimizer={"lr": 0.002}), folder=folder, resume=True, callback=watcher)
    assert ["optimizer.lr was 0.001, is 0.002" in event.message for event in watcher.events].count(True) == 1


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    folder = tmp_path / "run"
    train(tiny_recipe(), folder=folder, callback=StopAfter(3))
    other = tiny_recipe(model={"name": "vit_small_patch16_224"})
    with pytest.raises(ValueError, match=r"another model: model\.name was 'vit_tiny_patch16_224'"):
        train(other, folder=folder, resume=True)


def test_data_with_other_classes_than_the_run_learned_is_refused(tmp_path, unstopped, monkeypatch):
    def renamed(*args, **options):
        splits = open_splits(*args, **options)
        return replace(splits, info=replace(splits.info, class_names=tuple("0123465789")))

    monkeypatch.setattr("crosshead.train.checkpoint.memory.open_splits", renamed)
    with pytest.raises(ValueError, match="class 5 of the data is '6', and the run learned '5' there"):
        train(tiny_recipe(), folder=tmp_path / "run", resume=unstopped)


def test_a_folder_that_holds_a_run_is_not_overwritten(unstopped):
    with pytest.raises(ValueError, match="holds a run already; resume it"):
        train(tiny_recipe(), folder=unstopped)


def test_resuming_from_nowhere_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="nothing to resume at"):
        train(tiny_recipe(), resume=tmp_path / "typo")


def test_other_versions_and_threads_are_said_when_a_run_is_resumed(tmp_path):
    folder = tmp_path / "run"
    train(tiny_recipe(), folder=folder, callback=StopAfter(3))
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["threads"] == "1" and versions["cpu"]
    (folder / "versions.json").write_text(json.dumps({**versions, "torch": "1.0", "threads": "8"}))
    watcher = Watcher()
    train(tiny_recipe(), folder=folder, resume=True, callback=watcher)
    (event,) = (event for event in watcher.events if event.kind == "versions_changed")
    assert "torch 1.0 -> " in event.message and "threads 8 -> 1" in event.message

"""Checkpoints that cannot be written at the wrong moment: the last one, the best one."""

import json
import os
import shutil
from pathlib import Path

import pytest
from runs import StopAfter, Watcher, assert_same_ending, tiny_recipe

from crosshead.cli.terminal.progress import LineLogger
from crosshead.tasks import EvalResult
from crosshead.tasks.classify.evaluation import ClassifyEvaluation
from crosshead.train import EXIT_UNSAVED, load_run, train
from crosshead.train.checkpoint import rescue
from crosshead.train.checkpoint import saver as saving
from crosshead.train.checkpoint.store import CheckpointStore, read_state, read_tensors
from crosshead.train.events import RESULT_FILE
from crosshead.train.inference import find_weights
from crosshead.train.loop import finish as outcome
from crosshead.train.tools.doctor import examine


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(saving, "RETRY_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(outcome, "RETRY_PAUSES_S", (0.0, 0.0))


def fail_writes(monkeypatch, fails):
    """Checkpoints for which ``fails(folder, step)`` meet a full disk."""
    original = CheckpointStore.write

    def write(store, step, tensors, state):
        if fails(store.run_folder, step):
            raise OSError(28, "No space left on device", str(store.path(step)))
        return original(store, step, tensors, state)

    monkeypatch.setattr(CheckpointStore, "write", write)


def judge_as(monkeypatch, accuracies):
    """The accuracies of the evaluations, in order."""
    given = iter(accuracies)
    original = ClassifyEvaluation.compute

    def compute(*rows):
        return EvalResult({**original(*rows).metrics, "accuracy": next(given)})

    monkeypatch.setattr(ClassifyEvaluation, "compute", compute)


def test_a_last_checkpoint_that_fails_once_is_tried_again(tmp_path, unstopped, monkeypatch):
    failures = []
    fail_writes(monkeypatch, lambda _, step: step == 18 and len(failures) < 3 and not failures.append(step))
    result = train(tiny_recipe(), folder=tmp_path / "run")
    assert len(failures) == 3 and result.exit_code == 0
    assert_same_ending(tmp_path / "run", unstopped)


def test_a_last_checkpoint_that_cannot_be_written_in_its_place_is_kept_elsewhere(
    tmp_path, unstopped, monkeypatch
):
    folder = tmp_path / "run"
    judge_as(monkeypatch, [0.1, 0.2, 0.9, 0.5])
    with monkeypatch.context() as patch:
        fail_writes(patch, lambda place, step: place == folder and step == 18)
        watcher = Watcher()
        result = train(tiny_recipe(), folder=folder, callback=watcher)
    assert (result.status, result.exit_code, result.test) == ("unsaved", EXIT_UNSAVED, {})
    assert (result.selected_step, result.validation["accuracy"]) == (18, 0.9)
    assert not (folder / RESULT_FILE).exists(), "the run is not finished"
    (event,) = (event for event in watcher.events if event.kind == "unsaved")
    kept = Path(event.details["folder"])
    assert kept.parent == tmp_path and str(kept) in event.message and str(kept) in watcher.end.message
    assert result.weights == kept / "checkpoints" / "step-00000018" / "ema.safetensors"
    assert load_run(kept).recipe == tiny_recipe(), "what was kept is a run, to be used or gone on with"
    (kept / "checkpoints" / "step-00000018").rename(folder / "checkpoints" / "step-00000018")
    again = train(tiny_recipe(), folder=folder, resume=True)
    assert (again.status, again.selected_step, again.validation["accuracy"]) == ("finished", 18, 0.9)
    assert read_tensors(again.weights.parent)["ema"].keys() == read_tensors(unstopped / "best")["ema"].keys()


def test_a_run_kept_elsewhere_has_its_best_beside_it_and_can_be_gone_on_with(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    judge_as(monkeypatch, [0.1, 0.9, 0.2, 0.8])
    fail_writes(monkeypatch, lambda place, step: place == folder and step == 18)
    watcher = Watcher()
    train(tiny_recipe(), folder=folder, callback=watcher)
    (kept,) = (Path(event.details["folder"]) for event in watcher.events if event.kind == "unsaved")
    result = train(tiny_recipe(), folder=kept, resume=True)
    assert (result.status, result.selected_step, result.test["accuracy"]) == ("finished", 12, 0.8)


def test_where_only_the_weights_have_room_they_are_kept(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    judge_as(monkeypatch, [0.1, 0.2, 0.9])
    fail_writes(monkeypatch, lambda _, step: step == 18)
    watcher = Watcher()
    result = train(tiny_recipe(), folder=folder, callback=watcher)
    (event,) = (event for event in watcher.events if event.kind == "unsaved")
    assert "its weights alone are kept in" in event.message
    assert result.weights == Path(event.details["weights"]) and result.weights.stat().st_size > 0
    assert (result.exit_code, result.step) == (EXIT_UNSAVED, 18)


def test_weights_that_can_be_kept_nowhere_are_said_to_be_lost(tmp_path, unstopped, monkeypatch):
    folder = tmp_path / "run"
    judge_as(monkeypatch, [0.1, 0.2, 0.9])
    with monkeypatch.context() as patch:
        fail_writes(patch, lambda _, step: step > 14)
        patch.setattr(rescue, "places", lambda folder: [])
        watcher = Watcher()
        result = train(tiny_recipe(), folder=folder, callback=watcher)
    assert result.exit_code == EXIT_UNSAVED
    assert "what was learned after step 14 is lost" in watcher.end.message
    assert (result.selected_step, result.weights) == (
        12,
        folder / "checkpoints/step-00000012/ema.safetensors",
    )
    assert result.validation["accuracy"] == 0.2, "the metrics are those of the weights that are there"
    monkeypatch.undo()
    assert train(tiny_recipe(), folder=folder, resume=True).exit_code == 0


@pytest.mark.parametrize("nowhere", [False, True], ids=["kept elsewhere", "kept nowhere"])
def test_weights_that_could_not_be_put_back_are_named_where_they_lie(
    tmp_path, few_pictures, monkeypatch, nowhere
):
    """The disk takes no more renames from the moment at which the best one, which is there, is being replaced."""
    folder, original, seen = tmp_path / "run", os.rename, []
    # Resumed before the first evaluation, whose checkpoint did not come into its place: judged again, and tested.
    judge_as(monkeypatch, [0.9, 0.5, 0.9, 0.5, 0.7])
    recipe = tiny_recipe(data={**few_pictures, "batch_size": 4}, train={"epochs": 2})

    def rename(source, target):
        seen.append(Path(target).name)
        if seen.count("step-00000003") > 1:
            raise OSError(28, "No space left on device", str(target))
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        if nowhere:
            patch.setattr(rescue, "places", lambda folder: [])
        watcher = Watcher()
        result = train(recipe, folder=folder, callback=watcher)
    assert result.exit_code == EXIT_UNSAVED and result.weights is not None and result.weights.is_file()
    assert (result.selected_step, result.validation["accuracy"]) == (3, 0.9)
    assert ("after step 3 is lost" in watcher.end.message) == nowhere
    assert find_weights(folder, "last") == result.weights
    assert examine(folder).newest_good == result.weights.parent
    again = train(recipe, folder=folder, resume=True)
    assert (again.exit_code, again.step) == (0, 6) and again.weights.is_file()


def test_a_stopped_run_whose_checkpoint_cannot_be_written_says_so(tmp_path, unstopped, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        fail_writes(patch, lambda place, step: place == folder and step == 10)
        watcher = StopAfter(9)
        result = train(tiny_recipe(), folder=folder, callback=watcher)
    assert (result.status, result.exit_code) == ("unsaved", EXIT_UNSAVED)
    assert "checkpoint" in watcher.end.message and "step 10" in watcher.end.message
    train(tiny_recipe(), folder=folder, resume=True)
    assert_same_ending(folder, unstopped)


def test_a_result_that_cannot_be_written_is_not_the_end_of_a_run(tmp_path, unstopped, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:

        def full(path, content):
            raise OSError(28, "No space left on device", str(path))

        patch.setattr(outcome, "replace_file", full)
        result = train(tiny_recipe(), folder=folder)
    assert result.exit_code == EXIT_UNSAVED and result.test
    assert train(tiny_recipe(), folder=folder, resume=True).exit_code == 0
    assert_same_ending(folder, unstopped)


def test_a_best_that_could_not_be_written_leaves_the_one_before_it(tmp_path, monkeypatch):
    judge_as(monkeypatch, [0.9, 0.95, 0.5, 0.7])
    fail_writes(monkeypatch, lambda _, step: step in (11, 12, 13))
    folder = tmp_path / "run"
    result = train(tiny_recipe(checkpoint={"every_steps": 1}), folder=folder)
    assert (result.selected_step, result.validation["accuracy"], result.test["accuracy"]) == (6, 0.9, 0.7)
    assert result.exit_code == 0 and (folder / "best").resolve().name == "step-00000006"


@pytest.mark.parametrize("then", [0.92, 0.97])
def test_a_later_best_is_compared_with_the_best_that_is_there(tmp_path, monkeypatch, then):
    judge_as(monkeypatch, [0.9, 0.95, then, 0.7])
    fail_writes(monkeypatch, lambda _, step: step == 12)
    result = train(tiny_recipe(checkpoint={"every_steps": 5}), folder=tmp_path / "run")
    assert (result.selected_step, result.validation["accuracy"]) == (18, then)


def test_no_checkpoint_names_a_best_that_is_not_there(tmp_path, monkeypatch):
    """A stop right after a best that failed: what is resumed still knows the one before."""
    judge_as(monkeypatch, [0.9, 0.95, 0.5, 0.7])
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        fail_writes(patch, lambda _, step: step == 12)
        train(tiny_recipe(), folder=folder, callback=StopAfter(13))
    store = CheckpointStore(folder)
    assert read_state(store.path(14))["progress"]["best_step"] == 6
    result = train(tiny_recipe(), folder=folder, resume=True)
    assert (result.selected_step, result.validation["accuracy"]) == (6, 0.9)
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert not any("chosen anew" in line.get("message", "") for line in lines)


def test_tables_are_those_of_the_best_that_was_written(tmp_path, few_pictures, monkeypatch):
    folder = tmp_path / "run"
    given = iter([0.9, 0.95, 0.5])
    original = ClassifyEvaluation.compute

    def compute(*rows):
        accuracy = next(given)
        return EvalResult({**original(*rows).metrics, "accuracy": accuracy}, {"of": accuracy})

    without_test = {**few_pictures, "root": str(shutil.copytree(few_pictures["root"], tmp_path / "data"))}
    shutil.rmtree(tmp_path / "data" / "test")
    monkeypatch.setattr(ClassifyEvaluation, "compute", compute)
    recipe = tiny_recipe(data={**without_test, "batch_size": 4}, checkpoint={"every_steps": None})
    fail_writes(monkeypatch, lambda _, step: step == 6)
    result = train(recipe, folder=folder)
    assert (result.selected_step, result.validation["accuracy"], result.details["of"]) == (3, 0.9, 0.9)


def test_patience_goes_on_where_a_stopped_run_left_it(tmp_path, few_pictures, monkeypatch):
    judge_as(monkeypatch, [0.9, 0.8, 0.7, 0.6])
    recipe = tiny_recipe(data={**few_pictures, "batch_size": 4}, train={"epochs": 9, "patience": 2})
    stopped = train(recipe, folder=tmp_path / "run", callback=StopAfter(7))
    assert stopped.step == 8 and stopped.exit_code != 0
    result = train(recipe, folder=tmp_path / "run", resume=True)
    assert (result.step, result.selected_step, result.status) == (9, 3, "finished")


def test_a_run_without_patience_left_is_finished_and_told_as_it_was(
    tmp_path, few_pictures, monkeypatch, capfd
):
    folder = tmp_path / "run"
    judge_as(monkeypatch, [0.9, 0.8, 0.7, 0.6])
    recipe = tiny_recipe(data={**few_pictures, "batch_size": 4}, train={"epochs": 9, "patience": 2})
    result = train(recipe, folder=folder, callback=LineLogger(1))
    assert (result.step, result.selected_step) == (9, 3)
    told = capfd.readouterr().out.splitlines()[-4:]
    again = train(recipe, folder=folder, resume=True, callback=LineLogger(1))
    assert again == result and capfd.readouterr().out.splitlines()[-4:] == told
    assert "the run is finished" in examine(folder).advice

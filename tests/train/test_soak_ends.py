"""Faults at the points on which a run's weights hang: its last checkpoint, its best, its evaluations, its records.

Part of ``make soak``; what the run was told must agree with what is on disk, and every run comes to its end.
"""

import random
import shutil
from pathlib import Path

import pytest
from ledger import record
from runs import StopAfter, Watcher, assert_same_ending, ending, tiny_recipe
from test_unwritable import fail_writes, judge_as

from crosshead.tasks import ClassifyTask
from crosshead.train import EXIT_UNSAVED, train
from crosshead.train.checkpoint import saver as saving
from crosshead.train.checkpoint.store import CheckpointStore, read_state, step_of
from crosshead.train.files import MANIFEST
from crosshead.train.logging.log_files import METRICS_FILE
from crosshead.train.loop import finish as outcome

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(saving, "RETRY_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(outcome, "RETRY_PAUSES_S", (0.0, 0.0))


@pytest.fixture(scope="module")
def stopped_source(tmp_path_factory):
    """A run of 10 steps and its checkpoints of steps 6, 8 and 10."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    train(tiny_recipe(checkpoint={"every_steps": 2, "keep_last": 3}), folder=folder, callback=StopAfter(9))
    return folder


@pytest.fixture
def stopped(tmp_path, stopped_source):
    return shutil.copytree(stopped_source, tmp_path / "run", symlinks=True)


def flip_a_bit(path, choice):
    content = bytearray(path.read_bytes())
    content[choice.randrange(len(content))] ^= 1 << choice.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize("attempt", range(20))
def test_the_last_checkpoint_fails(tmp_path, unstopped, monkeypatch, attempt):
    """From some step on nothing is written into the folder: the last state is kept beside it, and is moved back."""
    folder, last = tmp_path / "run", random.Random(attempt).randrange(7, 19)
    with monkeypatch.context() as patch:
        fail_writes(patch, lambda place, step: place == folder and step >= last)
        watcher = Watcher()
        result = train(tiny_recipe(), folder=folder, callback=watcher)
    (event,) = (event for event in watcher.events if event.kind == "unsaved")
    kept = CheckpointStore(Path(event.details["folder"])).path(18)
    said = result.exit_code == EXIT_UNSAVED and result.weights is not None and result.weights.exists()
    kept.rename(CheckpointStore(folder).path(18))
    lost = [path.name for path in kept.parent.glob("step-*")]  # the best, where it was written before
    assert train(tiny_recipe(), folder=folder, resume=True).exit_code == 0
    same = ending(folder)["tensors"] == ending(unstopped)["tensors"]
    record("the last checkpoint fails", survived=said and same, note="nothing; exit 74")
    assert said and same, lost


@pytest.mark.parametrize("attempt", range(20))
def test_the_best_checkpoint_fails(tmp_path, monkeypatch, attempt):
    """At some moments nothing is written; what is selected is the best of what was."""
    choice = random.Random(attempt)
    accuracies = [choice.random() for _ in range(3)]
    failing = {step for step in (*range(6, 9), *range(12, 15)) if choice.random() < 0.6}
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        judge_as(patch, [*accuracies, 0.5])
        fail_writes(patch, lambda _, step: step in failing)
        result = train(tiny_recipe(checkpoint={"every_steps": 1}), folder=folder)
    written = {step: accuracies[step // 6 - 1] for step in (6, 12, 18) if step not in failing}
    best = max(written, key=lambda step: written[step])
    there = result.weights is not None and result.weights.parent == CheckpointStore(folder).path(best)
    good = there and result.validation["accuracy"] == written[best] and result.exit_code == 0
    good = good and (folder / "best").resolve().name == f"step-{best:08d}"
    record("the best checkpoint fails", survived=good, note="back to the best that was written")
    assert good, (accuracies, failing, result)


@pytest.mark.parametrize("attempt", range(20))
def test_an_evaluation_fails(tmp_path, unstopped, monkeypatch, attempt):
    folder, choice = tmp_path / "run", random.Random(attempt)
    fails_at, calls, original = choice.randrange(1, 11), [], ClassifyTask.predict

    def failing(task, model, batch):
        calls.append(1)
        if len(calls) == fails_at:
            raise RuntimeError("the evaluation fails")
        return original(task, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ClassifyTask, "predict", failing)
        watcher = Watcher()
        with pytest.raises(RuntimeError, match="the evaluation fails"):
            train(tiny_recipe(), folder=folder, callback=watcher)
    done = max(each.step for each in watcher.records)
    newest, _ = CheckpointStore(folder).newest_good()
    assert newest is not None
    assert train(tiny_recipe(), folder=folder, resume=True).exit_code == 0
    assert_same_ending(folder, unstopped)
    record("an evaluation fails", survived=True, lost=done - step_of(newest))


@pytest.mark.parametrize("attempt", range(50))
def test_a_damaged_log(stopped, unstopped, attempt):
    flip_a_bit(stopped / METRICS_FILE, random.Random(attempt))
    assert train(tiny_recipe(), folder=stopped, resume=True).exit_code == 0
    same = ending(stopped)["tensors"] == ending(unstopped)["tensors"]
    record("one bit flipped in metrics.jsonl, run resumed", survived=same, note="at most the line")
    assert same


@pytest.mark.parametrize("attempt", range(50))
def test_a_damaged_manifest(stopped, unstopped, attempt):
    choice, store = random.Random(attempt), CheckpointStore(stopped)
    manifest = store.path(10) / MANIFEST
    if attempt % 5:
        flip_a_bit(manifest, choice)
    else:
        manifest.write_bytes(choice.randbytes(choice.randrange(200)))
    assert train(tiny_recipe(), folder=stopped, resume=True).exit_code == 0
    assert_same_ending(stopped, unstopped)
    assert read_state(store.newest_good()[0])["progress"]["step"] == 18
    record("newest checkpoint's manifest damaged, run resumed", survived=True, note="back to the one before")

"""A fault at every point at which a run touches the disk: nothing is lost in silence, and what was lost is made again.

The tests of every day take a few of the points, ``make soak`` all of them.
"""

import os
import random
import shutil
import signal
from pathlib import Path

import pytest
from points import Points, full, room_for
from runs import StopAfter, Watcher, assert_same_ending, ending, tiny_recipe

from crosshead.train import EXIT_STOPPED, EXIT_UNSAVED, train
from crosshead.train.checkpoint import saver as saving
from crosshead.train.checkpoint.saver import Saver
from crosshead.train.checkpoint.store import CheckpointStore, step_in
from crosshead.train.events import RESULT_FILE, Result
from crosshead.train.files import verify
from crosshead.train.loop import finish as outcome
from crosshead.train.loop.trainer import Trainer

LEAN, ALL = 4, pytest.mark.soak


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(saving, "RETRY_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(outcome, "RETRY_PAUSES_S", (0.0, 0.0))


@pytest.fixture(scope="module")
def recipe(few_pictures):
    """Two epochs of three steps."""
    return tiny_recipe(
        data={**few_pictures, "batch_size": 4}, train={"epochs": 2}, checkpoint={"every_steps": 2}
    )


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """A run to which nothing happens, and the points that it meets."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with Points(folder).heard() as points:
        assert train(recipe, folder=folder).exit_code == 0
    return folder, points.met


def drawn(points, few):
    """All numbers of ``points``, or a few of them."""
    return sorted(random.Random(few).sample(range(len(points)), few)) if few else range(len(points))


def assert_nothing_misleads(result: Result, watcher: Watcher, folder: Path, whole: Path) -> None:
    """What a run says of itself, against what is on disk."""
    if result.exit_code == 0:
        assert result.weights is not None and step_in(result.weights.parent) == result.selected_step
        verify(result.weights.parent)
        assert step_in(folder / "best") == result.selected_step
        assert_same_ending(folder, whole)
    elif result.exit_code == EXIT_UNSAVED:
        assert "unsaved" in [event.kind for event in watcher.events]
        if result.weights is None:
            assert "is lost" in watcher.end.message
        else:
            assert result.weights.stat().st_size
    else:
        assert result.exit_code == EXIT_STOPPED
        newest, damages = CheckpointStore(folder).newest_good()
        assert newest is not None and step_in(newest) == result.step and not damages


def attack(recipe, folder, whole, act, *, resume=False, reads=False):
    """A run under ``act``, and, where it did not finish, its resuming without."""
    watcher = Watcher()
    try:
        with Points(folder, act, reads).heard():
            result = train(recipe, folder=folder, resume=resume, callback=watcher)
    except (OSError, ValueError):
        result = None
    else:
        assert_nothing_misleads(result, watcher, folder, whole)
    if result is None or result.exit_code:
        assert train(recipe, folder=folder, resume=True).exit_code == 0
        assert_nothing_misleads(Result.load(folder), watcher, folder, whole)
    for left in folder.parent.glob("*"):
        shutil.rmtree(left)


def fails_at(chosen, *, for_good):
    def act(number, kind, path):
        if number == chosen or (for_good and number > chosen):
            raise full(kind, path)

    return act


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("few", [LEAN, pytest.param(0, marks=ALL)], ids=["some", "all"])
def test_the_disk_fails_at_a_point(recipe, whole, tmp_path, few, for_good):
    for chosen in drawn(whole[1], few):
        try:
            attack(recipe, tmp_path / "run", whole[0], fails_at(chosen, for_good=for_good))
        except Exception as error:
            error.add_note(f"point {chosen}: {whole[1][chosen]}")
            raise


@pytest.fixture(scope="module")
def halfway(recipe, tmp_path_factory):
    """A run that was stopped after its fifth step, and the points at which its resuming reads and writes."""
    folder = tmp_path_factory.mktemp("halfway") / "run"
    assert train(recipe, folder=folder, callback=StopAfter(4)).step == 5
    met = {}
    for reads in (True, False):
        copy = shutil.copytree(folder, folder.with_name("copy"), symlinks=True)
        with Points(copy, reads=reads).heard() as points:
            train(recipe, folder=copy, resume=True)
        met[reads] = points.met
        shutil.rmtree(copy)
    return folder, met


@pytest.mark.parametrize("reads", [True, False], ids=["read", "write"])
@pytest.mark.parametrize("few", [LEAN // 2, pytest.param(0, marks=ALL)], ids=["some", "all"])
def test_the_disk_fails_once_while_a_run_is_resumed(recipe, whole, halfway, tmp_path, few, reads):
    source, met = halfway
    for chosen in drawn(met[reads], few):
        shutil.copytree(source, tmp_path / "run", symlinks=True)
        act = fails_at(chosen, for_good=False)
        attack(recipe, tmp_path / "run", whole[0], act, resume=True, reads=reads)


@pytest.mark.parametrize("few", [LEAN // 2, pytest.param(0, marks=ALL)], ids=["some", "all"])
def test_a_stop_is_asked_for_at_a_point(recipe, whole, tmp_path, few):
    def act(number, kind, path):
        if number == chosen:
            os.kill(os.getpid(), signal.SIGTERM)

    for chosen in drawn(whole[1][4:], few):  # before that nobody listens
        chosen += 4
        attack(recipe, tmp_path / "run", whole[0], act)


@pytest.mark.parametrize("few", [LEAN // 2, pytest.param(0, marks=ALL)], ids=["some", "all"])
def test_the_disk_is_full_after_some_bytes(recipe, whole, tmp_path, few):
    used = 400_000
    for size in sorted(random.Random(few).sample(range(used), few or 200)):
        with room_for(tmp_path / "run", size):
            watcher = Watcher()
            try:
                result = train(recipe, folder=tmp_path / "run", callback=watcher)
            except (OSError, ValueError):
                result = None
            else:
                assert_nothing_misleads(result, watcher, tmp_path / "run", whole[0])
        assert train(recipe, folder=tmp_path / "run", resume=True).exit_code == 0
        assert_same_tensors(tmp_path / "run", whole[0])
        for left in tmp_path.glob("*"):
            shutil.rmtree(left)


def assert_same_tensors(folder, whole):
    """Lines of the log may be lost where nothing can be written until the end; weights are not."""
    one, other = ending(folder), ending(whole)
    assert {**one, "metrics": None} == {**other, "metrics": None}
    assert (folder / "best").resolve().name == f"step-{one['selected']:08d}"


def test_a_result_of_an_earlier_end_is_not_told_for_a_later_one(recipe, whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole[0], tmp_path / "run", symlinks=True)
    longer = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 3})})

    def fail(*_):
        raise RuntimeError("the test fails")

    with monkeypatch.context() as patch:
        patch.setattr(outcome, "_test", fail)
        with pytest.raises(RuntimeError, match="the test fails"):
            train(longer, folder=folder, resume=True)
    assert not (folder / RESULT_FILE).exists() and (folder / "result.before-step-7.json").exists()
    assert train(longer, folder=folder, resume=True).step == 9


@pytest.mark.parametrize("damage", ["a cut result", "selected weights gone"])
def test_a_finished_run_that_is_not_whole_is_not_told_as_finished(recipe, whole, tmp_path, damage):
    folder = shutil.copytree(whole[0], tmp_path / "run", symlinks=True)
    result = Result.load(folder)
    if damage == "a cut result":
        (folder / RESULT_FILE).write_text((folder / RESULT_FILE).read_text()[:50])
    else:
        shutil.rmtree(result.weights.parent)
    again = train(recipe, folder=folder, resume=True)
    assert again.exit_code == 0 and again.weights is not None and again.weights.exists()
    assert Result.load(folder) == again


def test_checkpoints_that_are_deleted_under_a_run_are_written_again(recipe, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    original = Trainer.fit

    def deleted(trainer):
        finished = original(trainer)
        trainer.saver.finish()
        shutil.rmtree(folder / "checkpoints")
        return finished

    monkeypatch.setattr(Trainer, "fit", deleted)
    watcher = Watcher()
    result = train(recipe, folder=folder, callback=watcher)
    assert result.weights is not None and result.weights.exists()
    assert result.exit_code == 0 and step_in(folder / "best") == result.selected_step


def test_an_evaluation_that_is_made_again_is_logged_once(recipe, whole, tmp_path, monkeypatch):
    folder, saved = tmp_path / "run", []
    original = Saver.save

    def killed(saver, state):
        saved.append(state.progress.step)
        if saved.count(3) == 2:  # evaluated and logged, not yet saved
            raise KeyboardInterrupt
        original(saver, state)

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, folder=folder)
    train(recipe, folder=folder, resume=True)
    assert_same_ending(folder, whole[0])

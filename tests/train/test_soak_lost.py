"""Workers and folders that are lost at random moments; part of ``make soak``."""

import random

import pytest
from ledger import record
from runs import Watcher, assert_same_ending, ending, tiny_recipe
from test_lost_folder import remove, rename, replace
from test_lost_workers import SPREAD, ToWorkers, kill, starve
from test_soak import steps_to_repeat

from crosshead.train import EXIT_UNSAVED, WorkersLost, train
from crosshead.train.checkpoint.store import CheckpointStore

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


@pytest.mark.parametrize("attempt", range(10))
@pytest.mark.parametrize(
    ("kind", "deed"),
    [("a loader worker is killed", kill), ("a loader worker finds no shared memory", starve)],
)
def test_lost_workers(tmp_path, unstopped, kind, deed, attempt):
    """At the end of an epoch a worker has nothing left to do, and may be replaced without a word."""
    folder, step = tmp_path / "run", random.Random(attempt).randrange(1, 18)
    lost = None
    try:
        train(tiny_recipe(data=SPREAD), folder=folder, callback=ToWorkers(deed, after=step))
    except WorkersLost:
        lost = steps_to_repeat(folder)
        assert train(tiny_recipe(data=SPREAD), folder=folder, resume=True).status == "finished"
    assert_same_ending(folder, unstopped)
    record(kind, survived=True, lost=lost)


@pytest.mark.parametrize("attempt", range(5))
@pytest.mark.parametrize("deed", [remove, replace, rename])
def test_the_run_folder_vanishes(tmp_path, unstopped, deed, attempt):
    folder, step = tmp_path / "run", random.Random(attempt).randrange(1, 18)
    watcher = Watcher(lambda each: each.step == step and deed(folder))
    assert train(tiny_recipe(), folder=folder, callback=watcher).exit_code == EXIT_UNSAVED
    done = max(each.step for each in watcher.records)
    (kept,) = tmp_path.glob("run-kept-*")
    lost = done - steps_kept(kept)
    assert train(tiny_recipe(), folder=kept, resume=True).status == "finished"
    assert ending(kept)["tensors"] == ending(unstopped)["tensors"]
    record(f"the run's folder: {deed.__name__}", survived=True, lost=lost)


def steps_kept(folder):
    return CheckpointStore(folder).steps()[-1]

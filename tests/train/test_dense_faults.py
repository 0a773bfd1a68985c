"""Segmentation and detection keep the promises of a run; ``test_soak_dense.py`` has the same by the dozen."""

import signal

import pytest
from dense_runs import FEW, TASKS, dense_recipe, few_scenes, for_two
from runs import StopAfter, Watcher, assert_same_ending, start, wait
from test_kills import kill_until_done
from test_numbers import poison_loader

import crosshead.data.datasets.scenes as scenes
from crosshead.train import EXIT_STOPPED, train


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(scenes, "LENGTHS", FEW)


@pytest.mark.parametrize(
    "task", [task if task == "detect" else pytest.param(task, marks=pytest.mark.soak) for task in TASKS]
)
def test_killed_with_workers_and_stopped_and_resumed_it_ends_the_same(tmp_path, task):
    assert train(dense_recipe(task), folder=tmp_path / "whole").status == "finished"
    recipe = dense_recipe(task, "data.num_workers=1")
    kill_until_done(recipe, tmp_path / "killed", kills=2, prepare=few_scenes)
    assert_same_ending(tmp_path / "killed", tmp_path / "whole")
    stopped = train(dense_recipe(task), folder=tmp_path / "stopped", callback=StopAfter(4, signal.SIGTERM))
    assert stopped.exit_code == EXIT_STOPPED and stopped.step == 5
    assert train(dense_recipe(task), folder=tmp_path / "stopped", resume=True).status == "finished"
    assert_same_ending(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.soak
@pytest.mark.parametrize("task", TASKS)
def test_killing_one_of_two_processes_resumes_and_ends_the_same(tmp_path, task):
    recipe = for_two(task)
    assert wait(start(recipe, tmp_path / "whole", resume=False, processes=2, prepare=few_scenes)) == [0, 0]
    kill_until_done(recipe, tmp_path / "run", kills=1, processes=2, longest=3.0, prepare=few_scenes)
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_a_nan_in_a_scene_skips_the_step_and_names_it(tmp_path, monkeypatch):
    poison_loader(monkeypatch, epoch=1, places={1})
    watcher = Watcher()
    result = train(dense_recipe("detect"), folder=tmp_path / "run", callback=watcher)
    (bad,) = (event for event in watcher.events if event.kind == "bad_step")
    assert bad.step == 4 and result.bad_steps == 1 and bad.details["images"]

"""Faults by the dozen in runs that segment and that find objects; part of ``make soak``."""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from dense_runs import FEW, TASKS, dense_recipe, few_scenes, for_two
from ledger import record
from runs import Watcher, assert_same_ending, start, wait, wait_until
from test_numbers import poison_loader
from test_segment_runs import upernet_recipe
from test_soak import after_a_while, kill_many, steps_to_repeat

import crosshead.data.datasets.scenes as scenes
from crosshead.data.datasets.scenes import SceneObjects
from crosshead.data.decode.images import BrokenImage
from crosshead.train import EXIT_STOPPED, train
from crosshead.train.logging.log_files import METRICS_FILE
from map_files import map_folder, save_map

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(scenes, "LENGTHS", FEW)


@pytest.mark.parametrize("task", TASKS)
def test_kills_with_workers_and_accumulation(tmp_path, task):
    assert train(dense_recipe(task), folder=tmp_path / "whole").status == "finished"
    kill_many(
        f"{task}: kill -9, one process, a loader worker, accumulation",
        dense_recipe(task, "data.num_workers=1"),
        tmp_path / "whole",
        tmp_path,
        kills=30,
        processes=1,
        moment=after_a_while(1.5),
        prepare=few_scenes,
    )


@pytest.mark.parametrize("task", TASKS)
def test_kills_of_one_of_two_processes(tmp_path, task):
    recipe = for_two(task)
    assert wait(start(recipe, tmp_path / "whole", resume=False, processes=2, prepare=few_scenes)) == [0, 0]
    kill_many(
        f"{task}: kill -9, one of two processes",
        recipe,
        tmp_path / "whole",
        tmp_path,
        kills=20,
        processes=2,
        moment=after_a_while(2.5),
        prepare=few_scenes,
    )


def alone_with_few_scenes():
    """A group of its own, which a signal to it reaches with its workers."""
    os.setpgrp()
    few_scenes()


@pytest.mark.parametrize("task", TASKS)
def test_stop_signals_to_a_group_with_loader_workers(tmp_path, task):
    times = random.Random(task)
    assert train(dense_recipe(task), folder=tmp_path / "whole").status == "finished"
    recipe = dense_recipe(task, "data.num_workers=2")
    for attempt in range(15):
        folder = tmp_path / f"run-{attempt}"
        (process,) = start(recipe, folder, resume=False, prepare=alone_with_few_scenes)
        wait_until(lambda folder=folder: (folder / METRICS_FILE).exists())
        time.sleep(times.uniform(0, 0.8))
        if not process.is_alive():
            wait([process])
            continue
        os.killpg(process.pid, signal.SIGTERM)
        (code,) = wait([process])
        lost = steps_to_repeat(folder) if code == EXIT_STOPPED else None
        assert wait(start(recipe, folder, resume=True, prepare=few_scenes)) == [0]
        assert_same_ending(folder, tmp_path / "whole")
        kind = f"{task}: SIGTERM to the group, 2 loader workers"
        record(kind, survived=code in (0, EXIT_STOPPED), lost=lost)


@pytest.mark.parametrize("task", TASKS)
def test_numbers_that_are_not_finite(tmp_path, task, monkeypatch):
    choice = random.Random(task)
    for attempt in range(15):
        poison_loader(monkeypatch, epoch=choice.randrange(3), places={choice.randrange(6)})
        result = train(dense_recipe(task), folder=tmp_path / f"run-{attempt}")
        record(f"{task}: NaN in an image", survived=result.bad_steps == 1, note="the step")
        assert result.status == "finished" and result.bad_steps == 1


def told(watcher):
    return {
        Path(e.details["image"]).name: e.details["reason"] for e in watcher.events if e.kind == "broken_image"
    }


@pytest.mark.parametrize("attempt", range(15))
def test_broken_pictures_and_maps(tmp_path, attempt):
    choice = random.Random(attempt)
    root = map_folder(tmp_path / "data", count=16)
    ways = {
        "no picture": lambda i: (root / "images" / f"{i}.png").write_bytes(b"no picture"),
        "a picture cut short": lambda i: os.truncate(root / "images" / f"{i}.png", 90),
        "no map": lambda i: (root / "maps" / f"{i}.png").unlink(),
        "a map of another size": lambda i: save_map(root / "maps" / f"{i}.png", np.zeros((9, 9), np.uint8)),
        "unknown classes": lambda i: save_map(root / "maps" / f"{i}.png", np.full((20, 24), 9, np.uint8)),
    }
    broken = choice.sample(range(16), 3)
    for i in broken:
        ways[choice.choice(sorted(ways))](i)
    watcher = Watcher()
    result = train(upernet_recipe(root, data={"batch_size": 2}), folder=tmp_path / "run", callback=watcher)
    survived = result.status == "finished" and told(watcher).keys() == {f"{i}.png" for i in broken}
    record("segment: broken pictures and maps, three in a run", survived=survived, note="the pictures")
    assert survived, told(watcher)


@pytest.mark.parametrize("attempt", range(15))
def test_pictures_whose_objects_cannot_be_read(tmp_path, attempt, monkeypatch):
    broken, read = set(random.Random(attempt).sample(range(12), 3)), SceneObjects.sample

    def sample(self, i):
        if self.split == "train" and int(self.ids[i]) in broken:
            raise BrokenImage(self.name(i), "run lengths that don't fill the picture")
        return read(self, i)

    monkeypatch.setattr(SceneObjects, "sample", sample)
    watcher = Watcher()
    result = train(dense_recipe("detect"), folder=tmp_path / "run", callback=watcher)
    survived = result.status == "finished" and len(told(watcher)) == result.broken_images == 3
    record("detect: broken annotations, three in a run", survived=survived, note="the pictures")
    assert survived, told(watcher)

"""Two runs in one folder cannot happen; a lock that a killed run left is recognised."""

import os
import time

import pytest
from runs import PROCESSES, Watcher, start, tiny_recipe, wait

from crosshead.train import train
from crosshead.train.run_folder.lock import FolderBusy, FolderLock, is_held


def test_a_second_run_is_refused_with_the_first_one_named(tmp_path):
    folder = tmp_path / "run"
    refused = []

    def second(record):
        if record.step == 2:
            (process,) = start(tiny_recipe(), folder, resume=True)
            refused.extend(wait([process]))

    train(tiny_recipe(train={"epochs": 2}), folder=folder, callback=Watcher(second))
    assert refused == [1]
    log = (tmp_path / "run.log.0").read_text()
    assert f"{folder} is in use by process {os.getpid()} on" in log and "since" in log


def test_the_same_process_cannot_enter_twice(tmp_path):
    lock = FolderLock(tmp_path)
    lock.acquire()
    with pytest.raises(FolderBusy, match="this process is already running"):
        FolderLock(tmp_path).acquire()
    lock.release()
    FolderLock(tmp_path).acquire()


def _hold(folder):
    FolderLock(folder).acquire()
    time.sleep(60)


def _hold_with_child(folder):
    FolderLock(folder).acquire()
    if os.fork() == 0:
        time.sleep(8)  # as a loader's worker does that has not yet noticed that its parent is dead
        os._exit(0)
    time.sleep(60)


@pytest.mark.parametrize("target", [_hold, _hold_with_child])
def test_the_lock_of_a_killed_process_is_free_and_its_owner_named(tmp_path, target):
    process = PROCESSES.Process(target=target, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 60
    while is_held(tmp_path) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert f"process {process.pid} on" in is_held(tmp_path)
    with pytest.raises(FolderBusy, match=f"in use by process {process.pid}"):
        FolderLock(tmp_path).acquire()
    process.kill()
    process.join()
    assert is_held(tmp_path) is None
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert f"process {process.pid} on" in lock.stale_owner


def test_a_lock_that_was_released_is_not_stale(tmp_path):
    for _ in range(2):
        lock = FolderLock(tmp_path)
        lock.acquire()
        assert lock.stale_owner is None
        lock.release()

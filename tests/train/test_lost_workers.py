"""A process that loads data and dies, can't hand over its batch or hangs costs no step."""

import multiprocessing
import os
import resource
import signal
import threading
import time

import pytest
from runs import Watcher, assert_same_ending, log_of, start, tiny_recipe, wait

from crosshead.data.batching import workers
from crosshead.train import WorkersLost, train
from crosshead.train.checkpoint.store import CheckpointStore, read_state
from crosshead.train.logging.log_files import METRICS_FILE, read_lines

SPREAD = {"num_workers": 2}


class ToWorkers(Watcher):
    """Does ``deed`` to the processes that load data, after a step."""

    def __init__(self, deed, after=2):
        super().__init__(self.act)
        self.deed, self.after = deed, after

    def act(self, record):
        if record.step == self.after:
            for process in multiprocessing.active_children():
                self.deed(process.pid)


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def hang(pid):
    os.kill(pid, signal.SIGUSR2)


@pytest.fixture
def hanging(monkeypatch):
    """Workers that hang from SIGUSR2 on, as in the middle of reading from a disk that does not answer."""
    begin = workers._ignore_signals

    def begin_and_wait_for_the_signal(worker):
        begin(worker)
        signal.signal(signal.SIGUSR2, lambda *_: time.sleep(600))

    monkeypatch.setattr(workers, "_ignore_signals", begin_and_wait_for_the_signal)


def starve(pid):
    """Nothing above 4 KB fits into the process's shared memory any more."""
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))


def assert_nothing_is_lost(folder, unstopped):
    path, _ = CheckpointStore(folder).newest_good()
    steps = [line["step"] for line in read_lines(folder / METRICS_FILE) if line["kind"] == "step"]
    assert read_state(path)["progress"]["step"] == max(steps) < 18
    assert train(tiny_recipe(), folder=folder, resume=True).status == "finished"
    assert_same_ending(folder, unstopped)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        (kill, r"process \d+\) was killed, as the system does where memory runs out; data.num_workers=0"),
        (starve, r"could not put its batch into shared memory .*--shm-size.*data.num_workers=0"),
    ],
    ids=["killed", "no shared memory"],
)
def test_a_worker_that_is_lost_saves_the_run_and_names_the_remedy(tmp_path, unstopped, deed, said):
    folder, watcher = tmp_path / "run", ToWorkers(deed)
    with pytest.raises(WorkersLost, match=said + r".* is saved; --resume goes on"):
        train(tiny_recipe(data=SPREAD, checkpoint={"every_steps": 1000}), folder=folder, callback=watcher)
    assert watcher.kinds().count("workers_lost") == 1 and watcher.end.status == "failed"
    assert_nothing_is_lost(folder, unstopped)


def test_workers_that_hang_are_given_up(tmp_path, unstopped, hanging):
    folder, recipe = tmp_path / "run", tiny_recipe(data=SPREAD, train={"rank_timeout_s": 4})
    with pytest.raises(WorkersLost, match=r"no batch came from the data's workers for \d+ s"):
        train(recipe, folder=folder, callback=ToWorkers(hang))
    assert_nothing_is_lost(folder, unstopped)


def test_a_stop_is_obeyed_while_data_is_waited_for(tmp_path, unstopped, hanging):
    folder, watcher = tmp_path / "run", ToWorkers(hang)
    later = threading.Timer(2.5, os.kill, (os.getpid(), signal.SIGTERM))
    watcher.on_start = lambda info: later.start()
    assert train(tiny_recipe(data=SPREAD), folder=folder, callback=watcher).status == "stopped"
    assert_nothing_is_lost(folder, unstopped)


def test_a_worker_killed_between_two_passes_is_replaced(tmp_path, unstopped):
    folder = tmp_path / "run"
    train(tiny_recipe(data=SPREAD), folder=folder, callback=ToWorkers(kill, after=6))
    assert_same_ending(folder, unstopped)


def kill_the_worker_of_rank_1():
    def watch():
        while len(multiprocessing.active_children()) < 1:
            time.sleep(0.01)
        time.sleep(0.2)
        kill(multiprocessing.active_children()[0].pid)

    if os.environ["RANK"] == "1":
        threading.Thread(target=watch, daemon=True).start()


def test_two_processes_come_to_the_end_of_their_step_and_save(tmp_path):
    folder, changes = tmp_path / "run", {"data": {"batch_size": 6, "num_workers": 1}}
    recipe = tiny_recipe(**changes, train={"epochs": 30}, checkpoint={"every_steps": 1000})
    group = start(recipe, folder, resume=False, processes=2, prepare=kill_the_worker_of_rank_1)
    assert wait(group) == [1, 1]
    for rank in (0, 1):
        assert "WorkersLost: a worker of the data" in log_of(folder, rank)
    path, _ = CheckpointStore(folder).newest_good()
    steps = [line["step"] for line in read_lines(folder / METRICS_FILE) if line["kind"] == "step"]
    assert read_state(path)["progress"]["step"] == max(steps)

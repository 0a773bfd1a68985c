"""A stop signal finishes the step, saves and exits with 75; a second one ends at once."""

import os
import signal
import time

import pytest
from runs import (
    PROCESSES,
    StopAfter,
    Watcher,
    assert_same_ending,
    log_of,
    start,
    tiny_recipe,
    wait,
    wait_until,
)

from crosshead.tasks import ClassifyTask
from crosshead.train import EXIT_STOPPED, train
from crosshead.train.checkpoint.store import CheckpointStore
from crosshead.train.logging.log_files import METRICS_FILE
from crosshead.train.loop.signals import StopRequest


def has_begun(folder):
    """The first step is on record."""
    metrics = folder / METRICS_FILE
    return metrics.exists() and metrics.stat().st_size > 0


def test_a_signal_to_a_whole_group_with_loader_workers_saves_and_exits_with_the_stated_code(
    tmp_path, unstopped
):
    folder = tmp_path / "run"
    recipe = tiny_recipe(data={"num_workers": 2})
    (process,) = start(recipe, folder, resume=False, prepare=os.setpgrp)
    wait_until(lambda: has_begun(folder))
    os.killpg(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)  # at once again, as when a launcher passes on what all have heard
    assert wait([process]) == [EXIT_STOPPED]
    assert "SIGTERM: stopping after this step" in log_of(folder)
    assert not CheckpointStore(folder).newest_good()[1]
    assert wait(start(recipe, folder, resume=True)) == [0]
    assert_same_ending(folder, unstopped)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_the_end_of_a_jobs_time_and_of_a_terminal_are_stops(tmp_path, unstopped, number):
    folder = tmp_path / "run"
    stopped = train(tiny_recipe(data={"num_workers": 1}), folder=folder, callback=StopAfter(9, number))
    assert (stopped.status, stopped.exit_code, stopped.step) == ("stopped", EXIT_STOPPED, 10)
    train(tiny_recipe(), folder=folder, resume=True)
    assert_same_ending(folder, unstopped)


def test_a_run_that_was_told_to_outlive_its_terminal_does(tmp_path, unstopped):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert (
            train(tiny_recipe(), folder=tmp_path / "run", callback=StopAfter(9, signal.SIGHUP)).exit_code == 0
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    assert_same_ending(tmp_path / "run", unstopped)


def lose_the_terminal():
    """Nothing can be written to standard output and error any more."""
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)
    os.dup2(write, 2)


def test_a_stop_because_the_terminal_is_gone_is_saved(tmp_path, unstopped):
    folder = tmp_path / "run"
    (process,) = start(
        tiny_recipe(), folder, resume=False, prepare=lose_the_terminal, callback=Watcher(hang_up)
    )
    assert wait([process]) == [EXIT_STOPPED]
    train(tiny_recipe(), folder=folder, resume=True)
    assert_same_ending(folder, unstopped)


def hang_up(record):
    if getattr(record, "step", 0) == 5:
        signal.raise_signal(signal.SIGHUP)
    os.write(1, b"a step\n")


def never_end_a_step():
    def loss(task, predictions, batch):
        print("hanging", flush=True)
        time.sleep(600)

    ClassifyTask.loss = loss


def test_a_second_signal_ends_at_once(tmp_path):
    folder = tmp_path / "run"
    (process,) = start(tiny_recipe(), folder, resume=False, prepare=never_end_a_step)
    wait_until(lambda: os.path.exists(f"{folder}.log.0") and "hanging" in log_of(folder))
    os.kill(process.pid, signal.SIGINT)
    time.sleep(1.2)
    assert process.is_alive()
    started = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    assert wait([process]) == [128 + signal.SIGINT]
    assert time.monotonic() - started < 5


def _wait_without_the_interpreter(path):
    import ctypes

    with StopRequest():
        path.touch()
        ctypes.PyDLL(None).usleep(0)
        ctypes.CDLL(None).sleep(600)  # in C, without the interpreter's lock, restarted by no handler
        ctypes.CDLL(None).sleep(600)
        ctypes.CDLL(None).sleep(600)


def test_a_second_signal_ends_a_process_that_never_returns_to_the_interpreter(tmp_path):
    process = PROCESSES.Process(target=_wait_without_the_interpreter, args=(tmp_path / "ready",))
    process.start()
    wait_until((tmp_path / "ready").exists)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(1.2)
    os.kill(process.pid, signal.SIGTERM)
    assert wait([process], seconds=10) == [128 + signal.SIGTERM]


def test_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert signal.getsignal(signal.SIGTERM) != before
        signal.raise_signal(signal.SIGTERM)
        assert stop.name == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before

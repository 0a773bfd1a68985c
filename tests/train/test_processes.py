"""Several processes: the same weights, the same metrics, and one that dies or hangs ends all."""

import json
import os
import re
import signal
import socket
import time

import pytest
import torch
from runs import (
    PROCESSES,
    StopAfter,
    Watcher,
    ending,
    free_port,
    group_variables,
    log_of,
    start,
    tiny_recipe,
    wait,
)

from crosshead.tasks import ClassifyTask
from crosshead.train import EXIT_HUNG, evaluate_run, train
from crosshead.train.checkpoint.store import CheckpointStore, read_tensors
from crosshead.train.distributed.groups import join
from crosshead.train.distributed.watchdog import Watchdog
from tolerances import OUTPUT, assert_close

PLAIN = {
    "model": {
        "drop_path_rate": 0.0,
        "args": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
    },
    "augment": {"mixup": 0.0, "cutmix": 0.0, "horizontal_flip": 0.0},
    "optimizer": {"name": "sgd", "lr": 0.05},
}


def test_two_processes_with_half_the_batch_train_the_same_weights_as_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    train(tiny_recipe(**PLAIN), folder=one)
    halved = tiny_recipe(**PLAIN, data={"batch_size": 6})
    assert wait(start(halved, two, resume=False, processes=2)) == [0, 0]
    first, second = (read_tensors(CheckpointStore(folder).path(18))["model"] for folder in (one, two))
    for name, value in first.items():
        assert_close(second[name], value, OUTPUT[torch.float32], name)
    assert ending(one)["test"]["count"] == ending(two)["test"]["count"] == 359


def _evaluate(folder, variables, output):
    os.environ.update(variables)
    torch.set_num_threads(1)
    metrics = {split: evaluate_run(folder, split=split) for split in ("test", "validation")}
    if variables["RANK"] == "0":
        output.write_text(json.dumps(metrics))


def test_any_number_of_processes_evaluates_to_the_last_digit_the_same(tmp_path, unstopped):
    wanted = {split: evaluate_run(unstopped, split=split) for split in ("test", "validation")}
    assert wanted["test"] == ending(unstopped)["test"]
    for size in (2, 3, 5):
        port, output = str(free_port()), tmp_path / f"{size}.json"
        group = [
            PROCESSES.Process(target=_evaluate, args=(unstopped, group_variables(rank, size, port), output))
            for rank in range(size)
        ]
        for process in group:
            process.start()
        assert wait(group) == [0] * size
        got = json.loads(output.read_text())
        for split in ("test", "validation"):
            for metric in ("accuracy", "top5", "count"):
                assert got[split][metric] == wanted[split][metric], (size, split, metric)


class FromCall:
    """Does ``deed`` in one process from the given call of the loss on."""

    def __init__(self, deed, call, rank=1):
        self.deed, self.call, self.rank = deed, call, rank

    def __call__(self):
        if os.environ.get("RANK") != str(self.rank):
            return
        calls, original = [], ClassifyTask.loss

        def loss(task, predictions, batch):
            calls.append(1)
            if len(calls) == self.call:
                self.deed()
            return original(task, predictions, batch)

        ClassifyTask.loss = loss


def hang():
    time.sleep(600)


def fail():
    raise RuntimeError("the disk of machine B is on fire")


@pytest.mark.parametrize("ema", [pytest.param(None, marks=pytest.mark.soak), 0.9])
def test_under_batch_norm_all_processes_judge_the_statistics_that_are_saved(tmp_path, ema):
    """Each process has its own; those of rank 0 are the checkpoint's."""
    recipe = tiny_recipe(
        model={"name": "test_byobnet", "args": {}, "drop_path_rate": 0.0},
        data={"batch_size": 6, "image_size": 32},
        train={"steps": 6, "ema_decay": ema},
        schedule={"warmup_steps": 0},
    )
    assert wait(start(recipe, tmp_path / "run", resume=False, processes=2)) == [0, 0]
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())
    for split in ("validation", "test"):
        assert evaluate_run(tmp_path / "run", split=split) == pytest.approx(recorded[split], rel=1e-6)


def test_a_process_that_hangs_ends_the_group_in_time_and_is_named(tmp_path):
    folder = tmp_path / "run"
    recipe = tiny_recipe(data={"batch_size": 6}, train={"rank_timeout_s": 3})
    group = start(recipe, folder, resume=False, processes=2, prepare=FromCall(hang, 5))
    assert wait(group, seconds=60) == [EXIT_HUNG, EXIT_HUNG]
    named = f"process 1 (pid {group[1].pid} on {socket.gethostname()}) is at step 2, in the forward or backward pass"
    assert named in log_of(folder, 0)
    assert "in hang" in log_of(folder, 1), "where it hangs"
    assert named in (folder / "events.jsonl").read_text()


def hang_without_finding_out():
    def _find_fault(watchdog):
        raise RuntimeError("the store is gone")

    Watchdog._find_fault = _find_fault
    hang()


@pytest.mark.soak
def test_a_process_that_hangs_shows_where_also_when_another_one_finds_out_first(tmp_path):
    folder = tmp_path / "run"
    recipe = tiny_recipe(data={"batch_size": 6}, train={"rank_timeout_s": 3})
    group = start(recipe, folder, resume=False, processes=2, prepare=FromCall(hang_without_finding_out, 5))
    assert wait(group, seconds=60) == [EXIT_HUNG, EXIT_HUNG]
    assert "in hang" in log_of(folder, 1)


def freeze():
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.soak
def test_a_process_that_is_frozen_ends_the_others_in_time_and_is_named(tmp_path):
    folder = tmp_path / "run"
    recipe = tiny_recipe(data={"batch_size": 6}, train={"rank_timeout_s": 3})
    going, frozen = start(recipe, folder, resume=False, processes=2, prepare=FromCall(freeze, 5))
    try:
        assert wait([going], seconds=60) == [EXIT_HUNG]
    finally:
        frozen.kill()
        frozen.join()
    # Its pid and place are known from its first word to the group, which it can be too early frozen to say.
    late = rf"process 1 \(pid {frozen.pid} .*and does not answer"
    assert re.search(rf"{late}|no word from process 1 since the start", log_of(folder))


def die_before_the_start():
    if os.environ["RANK"] == "1":
        os._exit(3)


def test_a_process_that_dies_before_the_start_does_not_leave_the_others_waiting(tmp_path):
    recipe = tiny_recipe(data={"batch_size": 6}, train={"rank_timeout_s": 3})
    group = start(recipe, tmp_path / "run", resume=False, processes=2, prepare=die_before_the_start)
    assert wait(group, seconds=30) == [1, 3]
    assert "1/2 clients joined" in log_of(tmp_path / "run")


def test_a_process_that_fails_ends_the_group_with_its_message(tmp_path):
    folder = tmp_path / "run"
    group = start(
        tiny_recipe(data={"batch_size": 6}), folder, resume=False, processes=2, prepare=FromCall(fail, 5)
    )
    codes = wait(group, seconds=30)
    assert 0 not in codes
    assert "process 1 failed: RuntimeError: the disk of machine B is on fire" in log_of(folder, 0)


def test_a_failure_of_the_process_that_keeps_the_store_reaches_the_others(tmp_path):
    folder = tmp_path / "run"
    group = start(
        tiny_recipe(data={"batch_size": 6}),
        folder,
        resume=False,
        processes=2,
        prepare=FromCall(fail, 5, rank=0),
    )
    codes = wait(group, seconds=60)
    assert 0 not in codes
    assert "process 0 failed: RuntimeError: the disk of machine B is on fire" in log_of(folder, 1)


def test_going_on_with_another_number_of_processes_keeps_weights_and_says_what_is_new(tmp_path):
    folder = tmp_path / "run"
    train(tiny_recipe(), folder=folder, callback=StopAfter(7))
    halved = tiny_recipe(data={"batch_size": 6})
    assert wait(start(halved, folder, resume=True, processes=2)) == [0, 0]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    (changed,) = (event for event in events if event["kind"] == "world_changed")
    assert changed["message"].startswith("2 processes instead of 1: weights and optimizer go on")
    assert ending(folder)["progress"]["step"] == 18

    back = tmp_path / "back"
    watcher = Watcher()
    recipe = tiny_recipe(train={"epochs": 4})
    train(recipe, folder=back, resume=folder, callback=watcher)
    assert "world_changed" in watcher.kinds()
    assert ending(back)["progress"]["step"] == 24


def test_processes_with_different_recipes_are_refused(tmp_path):
    port = str(free_port())
    from runs import _run

    group = [
        PROCESSES.Process(
            target=_run,
            args=(
                tiny_recipe(optimizer={"lr": 0.001 * (rank + 1)}, data={"batch_size": 6}),
                tmp_path / "run",
                False,
                group_variables(rank, 2, port),
                {},
            ),
        )
        for rank in range(2)
    ]
    for process in group:
        process.start()
    assert wait(group) == [1, 1]
    assert "processes [1] were started with another recipe than process 0" in log_of(tmp_path / "run")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is None while WORLD_SIZE is '2'; start the processes with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x'"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2, which does not fit WORLD_SIZE 2"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many'"),
    ],
)
def test_incomplete_launch_variables_are_explained(monkeypatch, variables, message):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError) as caught:
        join(10)
    assert message in str(caught.value)

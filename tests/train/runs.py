"""Small runs for the tests of the engine, in this process or in others that can be killed."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from crosshead.recipe.schema import Recipe
from crosshead.train import Result, train
from crosshead.train.checkpoint.store import CheckpointStore, read_state, read_tensors
from crosshead.train.logging.log_files import METRICS_FILE, read_lines
from rendering import unrendered

# A server that has imported torch forks each process in milliseconds; none of its threads runs yet.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["crosshead.train", "sklearn.datasets", "matplotlib.figure", "matplotlib.backends.backend_agg"]
)

TINY = {
    "model": {
        "name": "vit_tiny_patch16_224",
        "drop_path_rate": 0.1,
        "args": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "proj_drop_rate": 0.1},
    },
    "data": {"validation": 0.9, "batch_size": 12, "eval_batch_size": 512},
    "augment": {"horizontal_flip": 0.0},
    "optimizer": {"lr": 1e-3},
    "schedule": {"warmup_epochs": 1.0},
    "train": {
        "epochs": 3,
        "accumulation_steps": 2,
        "device": "cpu",
        "ema_decay": 0.9,
        "deterministic": True,
        "rank_timeout_s": 60,
    },
    "log": {"every_steps": 1, "tensorboard": False},
    "checkpoint": {"every_steps": 2},
}
TIMES = ("images_per_second", "seconds_left", "seconds")


def tiny_recipe(**changes: Any) -> Recipe:
    """A run of 3 epochs of 6 steps of 2 x 12 images, with every kind of randomness; ``changes`` by section."""
    values = json.loads(json.dumps(TINY))
    for section, change in changes.items():
        if isinstance(change, dict):
            values.setdefault(section, {}).update(change)
        else:
            values[section] = change
    return Recipe.model_validate_json(json.dumps(values))


class Watcher:
    """Collects what a run says, and may act on a step."""

    def __init__(self, act: Callable[[Any], None] | None = None) -> None:
        self.records: list[Any] = []
        self.events: list[Any] = []
        self._act = act

    def on_start(self, info) -> None:
        self.info = info

    def on_step(self, record) -> None:
        self.records.append(record)
        if self._act is not None:
            self._act(record)

    def on_eval(self, record) -> None:
        self.records.append(record)

    def on_event(self, record) -> None:
        self.events.append(record)

    def on_end(self, record) -> None:
        self.end = record

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


class StopAfter(Watcher):
    """Sends its process a stop signal after a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        super().__init__(self.stop)
        self.step, self.number = step, number

    def stop(self, record) -> None:
        if record.step == self.step:
            signal.raise_signal(self.number)


def ending(folder: Path) -> dict[str, Any]:
    """Everything that two equal runs must agree on, bit for bit; times left out."""
    path, damages = CheckpointStore(folder).newest_good()
    assert path is not None and not damages
    state = read_state(path)
    tensors = {
        f"{name}/{key}": value.numpy().tobytes()
        for name, each in read_tensors(path).items()
        for key, value in each.items()
    }
    metrics = [
        {key: value for key, value in record.items() if key not in TIMES}
        for record in read_lines(folder / METRICS_FILE)
    ]
    result = Result.load(folder)
    return {
        "tensors": tensors,
        "progress": state["progress"],
        "optimizer": state["optimizer"],
        "scaler": state["scaler"],
        "metrics": metrics,
        "selected": result.selected_step,
        "test": result.test,
        "validation": result.validation,
    }


def assert_same_ending(one: Path, other: Path) -> None:
    first, second = ending(one), ending(other)
    assert first["tensors"].keys() == second["tensors"].keys()
    different = [name for name, value in first["tensors"].items() if value != second["tensors"][name]]
    assert not different, f"{len(different)} tensors differ, {different[0]} among them"
    for part in ("progress", "optimizer", "scaler", "metrics", "selected", "test", "validation"):
        assert first[part] == second[part], part


def start(recipe: Recipe, folder: Path, *, resume: bool, processes: int = 1, **options: Any) -> list[Any]:
    """Start the processes of a run; their output goes to ``folder``.log.RANK.

    Options: ``prepare``, called first in each process; ``callback``; ``log``, another place for the output.
    """
    port = str(free_port())
    started = []
    for rank in range(processes):
        variables = {} if processes == 1 else group_variables(rank, processes, port)
        process = PROCESSES.Process(target=_run, args=(recipe, folder, resume, variables, options))
        process.start()
        started.append(process)
    return started


def group_variables(rank: int, processes: int, port: str) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }


def _run(
    recipe: Recipe, folder: Path, resume: bool, variables: dict[str, str], options: dict[str, Any]
) -> None:
    """The body of a process: a run, its exit code as the command line would give it."""
    os.environ.update(variables)
    output = options.get("log", f"{folder}.log")
    log = os.open(f"{output}.{variables.get('RANK', '0')}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    prepare = options.get("prepare")
    code = 1
    try:
        if prepare is not None:
            prepare()
        with unrendered():
            code = train(recipe, folder=folder, resume=resume, callback=options.get("callback")).exit_code
    except BaseException:
        traceback.print_exc()
    with suppress(OSError):  # of a terminal that is gone
        sys.stderr.flush()
    os._exit(code)


def wait(processes: list[Any], seconds: float = 120) -> list[int]:
    """Exit codes; a process that is still there is killed and fails the test."""
    for process in processes:
        process.join(seconds)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
        process.join()
    assert not hanging, f"{len(hanging)} processes did not end within {seconds} s"
    return [process.exitcode for process in processes]


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for does not happen"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def log_of(folder: Path, rank: int = 0) -> str:
    return Path(f"{folder}.log.{rank}").read_text()

"""Callbacks beside the logs on disk: Weights & Biases, MLflow, and those that other packages offer.

A package offers one under the entry point group ``crosshead.callbacks``: a function of the run's folder and recipe that
gives a ``Callback``. ``log.callbacks`` names those that a run is told to, the two below included.
"""

import secrets
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from crosshead.files import read_text
from crosshead.ops.renamed import warn_of
from crosshead.recipe.schema import Recipe
from crosshead.train.events import Callback, EndRecord, EvalRecord, EventRecord, RunInfo, StepRecord

GROUP = "crosshead.callbacks"
_OLD_GROUP = "crosshead.observers"  # its name in 0.1
_LONGEST_ID = 1024  # bytes
Maker = Callable[[Path, Recipe], Callback]


def named_callbacks(folder: Path, recipe: Recipe) -> list[Callback]:
    """Those that ``log.callbacks`` names.

    Raises:
        ValueError: none of that name is offered.
        ModuleNotFoundError: its package is not installed.
    """
    offered: dict[str, Maker] = {"wandb": WandB, "mlflow": MLflow}
    found = []
    for name in recipe.log.callbacks:
        old = {point.name: point for point in entry_points(group=_OLD_GROUP)}
        further = old | {point.name: point for point in entry_points(group=GROUP)}
        if name in offered:
            found.append(guarded(name, offered[name](folder, recipe)))
        elif name in further:
            if further[name] is old.get(name):
                warn_of(f"the entry point group {_OLD_GROUP}", GROUP)
            found.append(guarded(name, further[name].load()(folder, recipe)))
        else:
            known = [*offered, *further]
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"log.callbacks: no callback {name!r}; {hint}known are {', '.join(known)}")
    return found


def guarded(name: str, callback: Callback) -> Callback:
    """``callback``, whose errors are those of a log that can't be written: a service that does not answer costs its
    figures, not the run. Each kind of call says its first error; one that could not start is left alone."""
    failed: set[str] = set()

    def call(method: str) -> Callable[[Any, Any], None]:
        def called(_: Any, record: Any) -> None:
            if "on_start" in failed:
                return
            try:
                getattr(callback, method)(record)
            except Exception as error:
                if method not in failed:
                    failed.add(method)
                    raise OSError(f"{type(error).__name__}: {error}") from error

        return called

    methods = {each: call(each) for each in ("on_start", "on_step", "on_eval", "on_event", "on_end")}
    return type(name, (), methods)()


class _Numbers:
    """Hands a callback's service the numbers of steps and evaluations, by name; ``log`` sends them."""

    every_steps: int

    def log(self, numbers: dict[str, float], step: int) -> None:
        raise NotImplementedError

    def on_step(self, record: StepRecord) -> None:
        if record.step % self.every_steps == 0:
            self.log(dict(_numbers(record)), record.step)

    def on_eval(self, record: EvalRecord) -> None:
        self.log({f"{record.split}/{name}": value for name, value in record.metrics.items()}, record.step)

    def on_event(self, record: EventRecord) -> None:
        """Services keep numbers; events are in the run's folder."""


class WandB(_Numbers):
    """Weights & Biases: one of its runs a run, gone on with after a resume. ``WANDB_MODE=offline`` keeps it local."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        import wandb

        self._wandb, self._folder, self._recipe = wandb, folder, recipe
        self.every_steps, self._last = recipe.log.every_steps, 0

    def on_start(self, info: RunInfo) -> None:
        kept = self._folder / "wandb-id.txt"
        number = _kept(kept) or secrets.token_hex(6)
        kept.write_text(number + "\n")
        self._run = self._wandb.init(
            project="crosshead",
            name=info.name,
            id=number,
            resume="allow",
            dir=str(self._folder),
            config=self._recipe.model_dump(mode="json"),
        )

    def log(self, numbers: dict[str, float], step: int) -> None:
        # The test is of an earlier step's weights, and what W&B is told of an earlier step it leaves out.
        self._last = max(self._last, step)
        self._run.log(numbers, step=self._last)

    def on_end(self, record: EndRecord) -> None:
        self._run.finish(exit_code=0 if record.status == "finished" else 1)


class MLflow(_Numbers):
    """MLflow: one of its runs a run, in the experiment "crosshead" of the tracking server that MLflow is set to."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        from mlflow.tracking import MlflowClient

        self._client, self._folder, self._recipe = MlflowClient(), folder, recipe
        self.every_steps = recipe.log.every_steps

    def on_start(self, info: RunInfo) -> None:
        kept = self._folder / "mlflow-id.txt"
        if number := _kept(kept):
            self._id = number
            return
        experiment = self._client.get_experiment_by_name("crosshead")
        group = experiment.experiment_id if experiment else self._client.create_experiment("crosshead")
        self._id = self._client.create_run(group, run_name=info.name).info.run_id
        for key, value in _flat(self._recipe.model_dump(mode="json")):
            self._client.log_param(self._id, key, value)
        kept.write_text(self._id + "\n")

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._client.log_metric(self._id, name, value, step=step)

    def on_end(self, record: EndRecord) -> None:
        ended = {"finished": "FINISHED", "stopped": "KILLED"}.get(record.status, "FAILED")
        self._client.set_terminated(self._id, status=ended)


def _kept(file: Path) -> str:
    """What a service called this run when it began; empty where it has not."""
    return read_text(file, most=_LONGEST_ID).strip() if file.exists() else ""


def _numbers(record: StepRecord) -> Iterator[tuple[str, float]]:
    for name in ("loss", "epoch_loss", "lr", "grad_norm", "images_per_second", "epoch"):
        yield f"train/{name}", getattr(record, name)
    for name, value in record.counts.items():
        yield f"train/{name}", value


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, str(value)

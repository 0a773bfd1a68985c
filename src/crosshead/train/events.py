"""What a run tells those who watch it: one record an occasion, its result, and the protocol that receives them."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from crosshead.files import read_json
from crosshead.formats import numbered, older_result, read_numbered

EXIT_FINISHED = 0
EXIT_STOPPED = 75  # sysexits.h EX_TEMPFAIL: stopped by a signal after writing a checkpoint; resuming goes on
EXIT_BAD_NUMBERS = 65  # EX_DATAERR: too many non-finite steps in a row
EXIT_UNSAVED = 74  # EX_IOERR: the last checkpoint or the result could not be written into the run's folder
EXIT_WORKERS_LOST = (
    71  # EX_OSERR: a process that loads data died or could not hand over a batch; resuming goes on
)
EXIT_HUNG = 70  # EX_SOFTWARE: a process of the group hung or died

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class RunInfo:
    """Known before the first step. Steps are optimizer steps; ``start_step`` is above 0 in a resumed run, and
    ``mid_epoch`` says that its epoch is not closed: what was logged of an evaluation there comes again.

    ``metric`` names the one that selects a checkpoint, ``shown`` those that are told of every evaluation, beside the
    loss; ``crosshead.tasks.METRICS`` tells how they are written.
    """

    folder: Path
    name: str
    model: str
    dataset: str
    device: str
    precision: str
    processes: int
    parameters: int
    gmacs: float
    train_images: int
    validation_images: int
    test_images: int
    epochs: int
    steps_per_epoch: int
    total_steps: int
    start_step: int
    metric: str
    shown: tuple[str, ...]
    mid_epoch: bool = False


@dataclass(frozen=True)
class StepRecord:
    """After every optimizer step, a skipped one included.

    ``step`` counts from 1; ``epoch`` is the progress in epochs (2.5: half of the third is done). ``loss`` is
    the step's mean over all processes, and the sum of the task's ``losses`` by name; ``epoch_loss`` is the mean of the
    epoch so far. ``counts`` are the task's shares of the training batch, by name ("accuracy"; left out where targets
    are mixed). ``grad_norm`` is before clipping. ``bad_steps`` and ``broken_images`` count from the start of the run.
    """

    step: int
    epoch: float
    lr: float
    loss: float
    epoch_loss: float
    losses: dict[str, float]
    counts: dict[str, float]
    grad_norm: float
    images_per_second: float
    seconds_left: float
    skipped: bool
    bad_steps: int
    broken_images: int


@dataclass(frozen=True)
class EvalRecord:
    """After an evaluation. ``best`` says that no earlier validation was better."""

    step: int
    epoch: float
    split: Literal["validation", "test"]
    weights: Literal["model", "ema"]
    metrics: dict[str, float]
    seconds: float
    best: bool


@dataclass(frozen=True)
class EventRecord:
    """Something that a reader of the log must see.

    ``kind``: "resume", "checkpoint", "checkpoint_failed", "tidying_failed", "damage", "bad_step", "broken_image",
    "signal", "lock", "hung", "recipe_changed", "world_changed", "log_failed", "unsaved", "data_changed",
    "versions_changed", "no_judgement", "slow", "data" or "note".
    ``details``: the facts for a program.
    """

    kind: str
    message: str
    step: int
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def is_warning(self) -> bool:
        return self.kind not in {"resume", "checkpoint", "note"}


class BadNumbers(RuntimeError):
    """Too many steps in a row had a loss or gradient that was not finite, or too many validations no judgement."""


@dataclass(frozen=True)
class Result:
    """What a run came to.

    ``validation`` and ``test`` map metric names to values ("accuracy", "loss", "count"; ``crosshead.tasks.METRICS``
    describes them); both are measured with the weights of ``selected_step``, the best on the validation split by
    ``metric`` (the averaged weights where the recipe keeps an average). ``shown`` names those that tell most, the first
    one first. ``details`` are tables of the test split, or of the validation split where there is none ("split" says
    which): a row a class, and the confusion matrix. ``test`` is empty until the end of training, and where there is no
    test split. ``images_per_second`` is the training throughput over all processes, evaluation left out.
    ``weights`` is the file that was selected. ``status`` is "unsaved" where the last checkpoint or the result
    could not be written into ``folder``; the log's last event says what is left and where. ``seconds`` are of training
    and validation, over everything that the run was stopped and resumed. A metric that is undefined is NaN.
    ``test_images_per_second`` is of the final test, reading its images included; ``peak_memory_mib`` the most memory
    that rank 0 had since it began: on a GPU what PyTorch allocated there, elsewhere all of the process. Both are None
    where they are not known, as of runs of earlier versions.
    """

    status: Literal["finished", "stopped", "unsaved"]
    folder: Path
    step: int
    epoch: float
    selected_step: int
    weights: Path | None
    validation: dict[str, float]
    test: dict[str, float]
    parameters: int
    gmacs: float
    images_per_second: float
    seconds: float
    bad_steps: int
    broken_images: int
    metric: str = "accuracy"
    shown: tuple[str, ...] = ("accuracy",)
    details: dict[str, Any] = field(default_factory=dict)
    test_images_per_second: float | None = None
    peak_memory_mib: float | None = None

    @property
    def exit_code(self) -> int:
        return {"finished": EXIT_FINISHED, "stopped": EXIT_STOPPED, "unsaved": EXIT_UNSAVED}[self.status]

    def to_json(self) -> str:
        """The result with paths relative to its folder, so that a moved run still reads right."""
        values: dict[str, Any] = asdict(self)
        del values["folder"]
        values["weights"] = None if self.weights is None else self.weights.relative_to(self.folder).as_posix()
        for split in ("validation", "test"):  # JSON has no NaN and no infinity
            values[split] = {name: _or_none(value) for name, value in values[split].items()}
        return json.dumps(numbered(values), indent=2, allow_nan=False) + "\n"

    @classmethod
    def load(cls, folder: Path) -> "Result":
        """Read ``result.json`` of a finished run; FileNotFoundError without one, ValueError for a broken one."""
        file = folder / RESULT_FILE
        values = read_numbered(read_json(file), file, older_result)
        _check_result(values, file)
        weights = values.pop("weights")
        for split in ("validation", "test"):
            values[split] = {name: _or_nan(value) for name, value in values[split].items()}
        values["shown"] = tuple(values["shown"])
        return cls(folder=folder, weights=None if weights is None else folder / weights, **values)


_COUNTS = "step", "epoch", "selected_step", "parameters", "gmacs", "images_per_second", "seconds"


def _check_result(values: dict[str, Any], file: Path) -> None:
    """ValueError for what ``to_json`` does not write: a broken file is told here, not where it is used."""

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def maps_numbers(value: Any) -> bool:
        return isinstance(value, dict) and all(x is None or is_number(x) for x in value.values())

    shown = values.get("shown")
    wrong = [name for name in _COUNTS if not is_number(values.get(name))]
    wrong += [name for name in ("validation", "test") if not maps_numbers(values.get(name))]
    wrong += ["weights"] * (not isinstance(values.get("weights", 0), str | None))
    wrong += ["details"] * (not isinstance(values.get("details"), dict))
    wrong += ["shown"] * (not (isinstance(shown, list) and shown and all(isinstance(x, str) for x in shown)))
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{file}: {name}: expected what training writes, got {json.dumps(values.get(name))[:40]}"
        )


@dataclass(frozen=True)
class EndRecord:
    """The last record. ``result`` is None when the run failed, and ``message`` then says why."""

    status: Literal["finished", "stopped", "unsaved", "failed"]
    message: str
    result: Result | None


class Callback(Protocol):
    """Called in rank 0 only, in the order of events; what it does delays training."""

    def on_start(self, info: RunInfo) -> None: ...

    def on_step(self, record: StepRecord) -> None: ...

    def on_eval(self, record: EvalRecord) -> None: ...

    def on_event(self, record: EventRecord) -> None: ...

    def on_end(self, record: EndRecord) -> None: ...


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value

"""How a run ended, and the exit code that says so to a shell."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from crosshead.files import read_json

EXIT_FINISHED = 0
EXIT_STOPPED = 75  # sysexits.h EX_TEMPFAIL: stopped by a signal after writing a checkpoint; resuming goes on
EXIT_BAD_NUMBERS = 65  # EX_DATAERR: too many non-finite steps in a row
EXIT_UNSAVED = 74  # EX_IOERR: the last checkpoint or the result could not be written into the run's folder
EXIT_WORKERS_LOST = (
    71  # EX_OSERR: a process that loads data died or could not hand over a batch; resuming goes on
)
EXIT_HUNG = 70  # EX_SOFTWARE: a process of the group hung or died

RESULT_FILE = "result.json"


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
        return json.dumps(values, indent=2, allow_nan=False) + "\n"

    @classmethod
    def load(cls, folder: Path) -> "Result":
        """Read ``result.json`` of a finished run; FileNotFoundError where there is none."""
        values = read_json(folder / RESULT_FILE)
        weights = values.pop("weights")
        for split in ("validation", "test"):
            values[split] = {name: _or_nan(value) for name, value in values[split].items()}
        values["shown"] = tuple(values.get("shown", ("accuracy",)))
        return cls(folder=folder, weights=None if weights is None else folder / weights, **values)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value

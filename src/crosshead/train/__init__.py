"""The training loop and its checkpoints. It knows losses, never a model's name.

    train(recipe, *, folder=None, resume=False, callback=None) -> Result
    evaluate_run(folder, *, split=None, checkpoint="best", device=None, data_root=None) -> dict[str, float]
    load_run(folder, *, checkpoint="best", device=None) -> LoadedRun      (model, classes, recipe)

``Result.exit_code`` is what a command should exit with; ``BadNumbers`` (exit with ``EXIT_BAD_NUMBERS``),
``WorkersLost`` (``EXIT_WORKERS_LOST``) and ``ValueError`` (a clean line, exit 2) are raised, everything else is a
fault.
"""

from typing import Any

from crosshead.data.batching.workers import WorkersLost
from crosshead.ops.renamed import warn_of
from crosshead.train.events import (
    EXIT_BAD_NUMBERS,
    EXIT_FINISHED,
    EXIT_HUNG,
    EXIT_STOPPED,
    EXIT_UNSAVED,
    EXIT_WORKERS_LOST,
    BadNumbers,
    Callback,
    EndRecord,
    EvalRecord,
    EventRecord,
    Result,
    RunInfo,
    StepRecord,
)
from crosshead.train.inference import LoadedRun, evaluate_run, find_weights, load_run
from crosshead.train.run import train

__all__ = [
    "EXIT_BAD_NUMBERS",
    "EXIT_FINISHED",
    "EXIT_HUNG",
    "EXIT_STOPPED",
    "EXIT_UNSAVED",
    "EXIT_WORKERS_LOST",
    "BadNumbers",
    "Callback",
    "EndRecord",
    "EvalRecord",
    "EventRecord",
    "LoadedRun",
    "Result",
    "RunInfo",
    "StepRecord",
    "WorkersLost",
    "evaluate_run",
    "find_weights",
    "load_run",
    "train",
]

_RENAMED = {"Observer": "Callback", "Trained": "LoadedRun", "load_trained": "load_run"}


def __getattr__(name: str) -> Any:
    """The names of 0.1, for one version."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_of(f"crosshead.train.{name}", f"crosshead.train.{_RENAMED[name]}")
    return globals()[_RENAMED[name]]

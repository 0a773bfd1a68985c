"""The training loop and its checkpoints. It knows losses, never a model's name.

    train(recipe, *, folder=None, resume=False, observer=None) -> Result
    evaluate_run(folder, *, split=None, checkpoint="best", device=None, data_root=None) -> dict[str, float]
    load_trained(folder, *, checkpoint="best", device=None) -> Trained      (model, classes, recipe)

``Result.exit_code`` is what a command should exit with; ``BadNumbers`` (exit with ``EXIT_BAD_NUMBERS``),
``WorkersLost`` (``EXIT_WORKERS_LOST``) and ``ValueError`` (a clean line, exit 2) are raised, everything else is a
fault.
"""

from crosshead.data.batching.workers import WorkersLost
from crosshead.train.events import EndRecord, EvalRecord, EventRecord, Observer, RunInfo, StepRecord
from crosshead.train.inference import Trained, evaluate_run, find_weights, load_trained
from crosshead.train.result import (
    EXIT_BAD_NUMBERS,
    EXIT_FINISHED,
    EXIT_HUNG,
    EXIT_STOPPED,
    EXIT_UNSAVED,
    EXIT_WORKERS_LOST,
    BadNumbers,
    Result,
)
from crosshead.train.run import train

__all__ = [
    "EXIT_BAD_NUMBERS",
    "EXIT_FINISHED",
    "EXIT_HUNG",
    "EXIT_STOPPED",
    "EXIT_UNSAVED",
    "EXIT_WORKERS_LOST",
    "BadNumbers",
    "EndRecord",
    "EvalRecord",
    "EventRecord",
    "Observer",
    "Result",
    "RunInfo",
    "StepRecord",
    "Trained",
    "WorkersLost",
    "evaluate_run",
    "find_weights",
    "load_trained",
    "train",
]

"""What a run tells those who watch it: one record an occasion, and the protocol that receives them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from crosshead.train.result import Result


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

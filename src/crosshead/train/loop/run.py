"""A run's parts in one place, for everything that works on it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from crosshead.data.base import Batch
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Task
from crosshead.train.checkpoint.saver import Saver
from crosshead.train.checkpoint.state import TrainState
from crosshead.train.distributed.groups import World
from crosshead.train.distributed.watchdog import Watchdog
from crosshead.train.events import Callback
from crosshead.train.loop.evaluate import Batches
from crosshead.train.loop.lengths import TrainingLength
from crosshead.train.loop.signals import StopRequest


@dataclass(frozen=True)
class EvalSplit:
    """A split to evaluate: ``batches()`` is this process's share of its ``images``."""

    batches: Callable[[], Batches]
    images: int


@dataclass(frozen=True)
class Source:
    """Where batches come from: ``training(epoch, start)`` is this process's share of an epoch after its first
    ``start`` samples (over all processes)."""

    training: Callable[[int, int], Iterable[Batch]]
    validation: EvalSplit
    test: EvalSplit | None


@dataclass(frozen=True)
class Training:
    """What takes steps, in one of a run's processes. ``network`` is the state's model, wrapped for several processes or
    not; ``set_rate(step)`` sets the learning rate of a step and gives it."""

    recipe: Recipe
    task: Task
    lengths: TrainingLength
    state: TrainState
    network: nn.Module
    set_rate: Callable[[int], float]
    world: World
    watchdog: Watchdog


@dataclass(frozen=True)
class Run(Training):
    """One run, in one of its processes: steps, and what surrounds them."""

    source: Source
    saver: Saver
    callback: Callback
    stop: StopRequest

    @property
    def over(self) -> bool:
        """Whether no step is left."""
        return self.lengths.is_over(self.state.progress, self.recipe.train.patience)

    @property
    def epochs(self) -> float:
        """The progress in epochs; the last one may be a part where the length is given in steps."""
        progress, lengths = self.state.progress, self.lengths
        begun = progress.epoch + progress.samples / lengths.samples_per_epoch
        return min(begun, lengths.total_steps / lengths.steps_per_epoch)

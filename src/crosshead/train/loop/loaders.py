"""Where a run's batches come from, in one of its processes."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from crosshead.data.base import Batch, ImageSet, Splits
from crosshead.data.batching.loader import Loader, Waiting, evaluation_loader, training_loader
from crosshead.data.batching.workers import Workers
from crosshead.train.checkpoint.saver import Saver
from crosshead.train.events import Callback, EventRecord
from crosshead.train.loop.build import Training
from crosshead.train.loop.evaluate import Batches
from crosshead.train.loop.signals import StopRequest


@dataclass(frozen=True)
class EvalSplit:
    """A split to evaluate: ``batches()`` is this process's share of its ``images``."""

    batches: Callable[[], Batches]
    images: int


@dataclass(frozen=True)
class DataLoaders:
    """``training(epoch, start)`` is this process's share of an epoch after its first ``start`` samples (over all
    processes)."""

    training: Callable[[int, int], Iterable[Batch]]
    validation: EvalSplit
    test: EvalSplit | None


class Waits:
    """What may end a run's waits for data: a stop that is asked for, and workers that fail.

    Where one fails, this process makes the batches that are missing, so that all processes come to the end of their
    step, and the run is asked to stop there.
    """

    def __init__(self, training: Training, *, saver: Saver, callback: Callback, stop: StopRequest) -> None:
        self.state, self.world = training.state, training.world
        self.saver, self.callback, self.stop = saver, callback, stop
        # Half of the time after which the others would call this process hung.
        self.patience_s = training.recipe.train.rank_timeout_s / 2

    def in_training(self) -> Waiting:
        # Of several processes none may leave a step that the others have begun.
        stopped = self._stopped if self.world.size == 1 else lambda: False
        return Waiting(stopped, self.patience_s, self._lost_in_training)

    def in_evaluation(self) -> Waiting:
        return Waiting(self._stopped, self.patience_s, self._lost)

    def _stopped(self) -> bool:
        return self.stop.name is not None

    def _lost_in_training(self, fault: str) -> None:
        self._lost(fault)
        if self.world.size == 1:  # whatever becomes of the batches that this process now makes itself
            self.saver.save(self.state)

    def _lost(self, fault: str) -> None:
        self.stop.ask(fault)
        message = f"{fault}. The run makes the batches of this step itself, and then stops"
        self.callback.on_event(EventRecord("workers_lost", message, self.state.progress.step))


def build_loaders(training: Training, splits: Splits, waits: Waits, stack: ExitStack) -> DataLoaders:
    """Those of this process; their workers end with ``stack``."""
    recipe, task, world = training.recipe, training.task, training.world
    share: dict[str, int] = {"rank": world.rank, "world_size": world.size}

    def workers() -> Workers:
        own = Workers(recipe.data.num_workers)
        stack.callback(own.end, at_once=True)
        return own

    def epoch_from(epoch: int, start: int) -> Loader:
        batches = task.training_batches(splits.train, seed=recipe.train.seed, epoch=epoch)
        steps, waiting = recipe.train.accumulation_steps, waits.in_training()
        return training_loader(
            batches, start=start, accumulation_steps=steps, workers=trainers, waiting=waiting, **share
        )

    def held(split: str, images: ImageSet, workers: Workers | None) -> EvalSplit:
        batches, policy, waiting = (
            task.evaluation_batches(images),
            splits.broken_policy(split),
            waits.in_evaluation(),
        )
        loader = partial(evaluation_loader, batches, policy=policy, workers=workers, waiting=waiting, **share)
        return EvalSplit(loader, len(images))

    trainers = workers()
    test = None if splits.test is None else held("test", splits.test, None)
    return DataLoaders(epoch_from, held("validation", splits.validation, workers()), test)

"""How long a run is, in images, steps and epochs; how fast it goes, and how long it will still take."""

import time
from dataclasses import dataclass

from crosshead.data.batching.order import samples_per_epoch
from crosshead.recipe.schema import Recipe
from crosshead.train.checkpoint.state import Progress


@dataclass(frozen=True)
class TrainingLength:
    """``step_samples`` images go into a step over all processes, ``samples_per_epoch`` into an epoch; what fills no
    whole step is left out of it. The last epoch ends early where the run's length is given in steps."""

    step_samples: int
    samples_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, recipe: Recipe, images: int, world_size: int) -> "TrainingLength":
        """Of the run of ``recipe`` on a training set of ``images``; ValueError where they don't fill a step."""
        batch_size, accumulated = recipe.data.batch_size, recipe.train.accumulation_steps
        epoch = samples_per_epoch(images, batch_size, world_size, accumulated)
        step = batch_size * accumulated * world_size
        return cls(step, epoch, recipe.train.steps or recipe.train.epochs * (epoch // step))

    @property
    def steps_per_epoch(self) -> int:
        return self.samples_per_epoch // self.step_samples

    @property
    def epochs(self) -> int:
        """How many epochs are begun."""
        return -(-self.total_steps // self.steps_per_epoch)

    def steps_left(self, progress: Progress) -> int:
        """How many steps follow after ``progress``, which may have been made by another number of processes."""
        return max(self.total_steps - self.place(progress), 0)

    def place(self, progress: Progress) -> int:
        """How many steps of this run lead to ``progress``: its own count, unless data or batch have changed since."""
        samples = min(progress.samples, self.samples_per_epoch)
        return progress.epoch * self.steps_per_epoch + samples // self.step_samples

    def is_over(self, progress: Progress, patience: int | None) -> bool:
        """Whether no step is left: all are made, or ``patience`` evaluations in a row were not better."""
        done = progress.epoch >= self.epochs or (
            self.ends_within_epoch(progress) and progress.validated == progress.step
        )
        return done or (patience is not None and progress.since_best >= patience)

    def ends_within_epoch(self, progress: Progress) -> bool:
        """Whether all steps are made, and the last of them ended no epoch."""
        cut = self.samples_in(progress.epoch) < self.samples_per_epoch
        return cut and progress.samples > 0 and self.steps_left(progress) == 0

    def samples_in(self, epoch: int) -> int:
        """How many images epoch number ``epoch``, from 0, has."""
        left = self.total_steps * self.step_samples - epoch * self.samples_per_epoch
        return min(max(left, 0), self.samples_per_epoch)


class Throughput:
    """Counts the steps of this process, evaluations between them included. The rate forgets with each step."""

    def __init__(self, steps_left: int) -> None:
        self.steps_left = steps_left
        self.images_per_second = 0.0
        self._started = self._last = time.perf_counter()
        self._steps = 0

    def step(self, images: int) -> None:
        now = time.perf_counter()
        rate = images / max(now - self._last, 1e-9)
        self.images_per_second = rate if self._steps == 0 else 0.95 * self.images_per_second + 0.05 * rate
        self._last = now
        self._steps += 1
        self.steps_left -= 1

    @property
    def seconds_left(self) -> float:
        return max(self.steps_left, 0) * (self._last - self._started) / max(self._steps, 1)

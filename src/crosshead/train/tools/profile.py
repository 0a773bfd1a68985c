"""A few steps of a recipe outside of any run: how long training will take, and where a step's time goes.

Nothing is written, and the model is thrown away: the run that follows starts as if this had not been.
"""

import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import timm
import torch

from crosshead.data.base import Batch, Splits
from crosshead.data.batching.loader import training_loader
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Task
from crosshead.train.anchors import with_fitted_anchors
from crosshead.train.distributed.groups import World
from crosshead.train.distributed.watchdog import Watchdog
from crosshead.train.loop.build import build_training
from crosshead.train.loop.devices import choose_device, deterministic_algorithms, tune_allocator
from crosshead.train.loop.lengths import TrainingLength
from crosshead.train.loop.model import build_model
from crosshead.train.loop.steps import PARTS, Part, Requests, StepOutcome, TrainStep
from crosshead.train.precheck import check_contents, precheck
from crosshead.train.resolve import check_presumed_weights, resolve
from crosshead.train.teacher import load_teacher

STEP = "training step"
_SIZES = ("giant", "huge", "large", "base", "medium", "small", "tiny", "mini", "micro")


class Trial:
    """A recipe's training as a run has it, in this process alone: the same model, step and batches."""

    def __init__(
        self,
        recipe: Recipe,
        part: Part | None = None,
        *,
        from_weights: bool = False,
        splits: Splits | None = None,
    ) -> None:
        """``part(name)`` is entered around each of ``PARTS``, see ``TrainStep``. Steps cost the same whatever the
        weights: ``from_weights`` takes the recipe's first ones. ``splits`` are its data, if open."""
        recipe = resolve(recipe)
        self.device = choose_device(recipe.train.device)
        if self.device.type == "cpu":
            tune_allocator()
        self.splits: Splits = open_splits(recipe) if splits is None else splits
        self.recipe = recipe = with_fitted_anchors(recipe, self.splits)[0]
        self.task: Task = precheck(recipe, self.splits)
        check_contents(self.task, self.splits)
        self.lengths = TrainingLength.of(recipe, len(self.splits.train), 1)
        world = World()
        watchdog = Watchdog(
            world, recipe.train.rank_timeout_s
        )  # which looks at nothing where it is not entered
        model = build_model(recipe, self.task, from_weights=from_weights)
        teacher = load_teacher(recipe, self.task, self.splits.info, self.device)
        self.training = build_training(
            recipe, self.task, model, self.lengths, self.device, world, watchdog, teacher
        )
        self.training.network.train()
        self.part = part or (lambda name: nullcontext())
        self.train_step = TrainStep(self.training, self.part)
        self.outcome: StepOutcome | None = None  # of the last step

    def steps(self, rate: Callable[[], float] | None = None) -> Iterator[int]:
        """Takes steps without end, epoch after epoch, at the recipe's rates or at ``rate()``; gives each one's number
        of images."""
        progress = self.training.state.progress
        groups = self._groups()
        with deterministic_algorithms(self.recipe.train.deterministic):
            while True:
                with self.part(STEP):
                    with self.part("data"):
                        batches = next(groups)
                    self.training.set_rate(progress.step)
                    if rate is not None:
                        for group in self.training.state.optimizer.param_groups:
                            group["lr"] = rate() * group.get("lr_scale", 1.0)
                    self.outcome = self.train_step(batches, Requests)
                    progress.step += 1
                yield self.outcome.images

    def _groups(self) -> Iterator[list[Batch]]:
        """The batches of one step at a time."""
        accumulated = self.recipe.train.accumulation_steps
        for epoch in count():
            made = self.task.training_batches(self.splits.train, seed=self.recipe.train.seed, epoch=epoch)
            batches = iter(training_loader(made, accumulation_steps=accumulated))
            while len(group := list(islice(batches, accumulated))) == accumulated:
                yield group


@dataclass(frozen=True)
class Forecast:
    """How long a run will take, from the median of a few of its ``measured`` steps; evaluation's share is a guess from
    the number of its images and a third of a training step's time for each."""

    step_seconds: float
    measured: int
    steps: int
    seconds: float
    device: str
    smaller: str | None


def forecast(recipe: Recipe, *, steps: int = 3) -> Forecast:
    """Takes one step to warm up and ``steps`` more, at most a minute of them, and throws the model away.

    Raises:
        ValueError: the recipe or its data can't be used.
    """
    check_presumed_weights(resolve(recipe))  # no time is told of a run that would be refused
    trial, seconds = Trial(recipe), []
    taking = trial.steps()
    begun = started = time.perf_counter()
    images = next(taking)
    for _ in range(steps):
        started = time.perf_counter()
        images = next(taking)
        seconds.append(time.perf_counter() - started)
        if time.perf_counter() - begun > 60:
            break
    lengths, train = trial.lengths, trial.recipe.train
    step = statistics.median(seconds)
    evaluations = -(-lengths.epochs // train.eval_every_epochs)
    held = len(trial.splits.validation) * evaluations + (
        0 if trial.splits.test is None else len(trial.splits.test)
    )
    device = trial.device.type
    if device == "cpu":
        device = f"cpu with {torch.get_num_threads()} threads"
    return Forecast(
        step,
        len(seconds),
        lengths.total_steps,
        step * lengths.total_steps + step / max(images, 1) / 3 * held,
        device,
        smaller_model(recipe.model.name),
    )


def smaller_model(name: str) -> str | None:
    """A model of the same family that is one or more sizes smaller, by the word for its size; None without one."""
    plain = name.partition(".")[0]
    own = next((size for size in _SIZES if re.search(rf"(?<![a-z]){size}(?![a-z])", plain)), None)
    if own is None:
        return None
    for size in _SIZES[_SIZES.index(own) + 1 :]:
        smaller = re.sub(rf"(?<![a-z]){own}(?![a-z])", size, plain)
        if timm.is_model(smaller):
            return smaller
    return None


@dataclass(frozen=True)
class Profile:
    """Milliseconds a step by part (median over the steps, and all of them), and the operators that took longest:
    (name, milliseconds a step, calls a step), without what they call themselves."""

    parts: dict[str, list[float]]
    operators: list[tuple[str, float, float]]
    images: int
    device: str
    steps: int


def profile(recipe: Recipe, *, steps: int = 10, warm_up: int = 2, operators: int = 12) -> Profile:
    """Profiles ``steps`` training steps after ``warm_up`` ones, with torch.profiler.

    Every part waits for the device, so that its time is its own: on a GPU a step is a little slower than in a run,
    where the parts overlap.
    """
    from torch.profiler import ProfilerActivity, record_function
    from torch.profiler import profile as torch_profile

    @contextmanager
    def recorded(name: str) -> Iterator[None]:
        with record_function(name):
            yield
            synchronise(trial.device)

    trial = Trial(recipe, recorded)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (trial.device.type == "cuda")
    taking = trial.steps()
    for _ in islice(taking, warm_up):
        pass
    with torch_profile(activities=activities) as found:
        images = sum(islice(taking, steps))
    parts = _times_of_parts(list(found.events() or []))
    on_gpu = trial.device.type == "cuda"
    rows = [
        (
            each.key,
            (each.self_device_time_total if on_gpu else each.self_cpu_time_total) / 1000 / steps,
            each.count / steps,
        )
        for each in found.key_averages()
        if each.key not in (*PARTS, STEP)
    ]
    longest = sorted(rows, key=lambda row: -row[1])[:operators]
    return Profile(parts, longest, images // steps, str(trial.device), steps)


def _times_of_parts(events: list[Any]) -> dict[str, list[float]]:
    """Milliseconds by part, one for each step; a part comes more than once in a step that is accumulated."""
    events = [event for event in events if event.device_type == torch.autograd.DeviceType.CPU]
    steps = sorted((e.time_range for e in events if e.name == STEP), key=lambda span: span.start)
    return {
        name: [
            sum(
                event.time_range.elapsed_us() / 1000
                for event in events
                if event.name == name and span.start <= event.time_range.start < span.end
            )
            for span in steps
        ]
        for name in PARTS
    }


def synchronise(device: torch.device) -> None:
    """Wait until ``device`` has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

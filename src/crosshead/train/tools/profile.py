"""A few steps of a recipe outside of any run: how long training will take, and where a step's time goes.

Nothing is written, and the model is thrown away: the run that follows starts as if this had not been.
"""

import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, islice

import timm
import torch
from torch import Tensor, nn

from crosshead.data.base import Batch, Splits
from crosshead.data.batching.loader import training_loader
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Task, open_task
from crosshead.train.loop.allocator import tune_allocator
from crosshead.train.loop.devices import autocast, choose_device
from crosshead.train.loop.lengths import Lengths
from crosshead.train.loop.optim import build_optimizer, freeze
from crosshead.train.resolve import check_presumed_weights, settle

PARTS = ("data", "forward", "backward", "optimizer")
Part = Callable[[str], AbstractContextManager[object]]
_SIZES = ("giant", "huge", "large", "base", "medium", "small", "tiny", "mini", "micro")


class Trial:
    """A recipe's model, optimizer and training data, on its device and in this process alone."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe = settle(recipe)
        self.device = choose_device(recipe.train.device)
        if self.device.type == "cpu":
            tune_allocator()
        self.splits: Splits = open_splits(recipe)
        self.splits.refuse_known_faults(recipe.data)
        self.task: Task = open_task(recipe, self.splits.info)
        self.task.training_batches(self.splits.train, seed=0, epoch=0)  # refuses what it can't learn from
        self.lengths = Lengths.of(recipe, len(self.splits.train), 1)
        self.model: nn.Module = self.task.build_model(from_weights=False).to(self.device).train()
        if recipe.train.grad_checkpointing:
            self.model.set_grad_checkpointing(True)  # type: ignore[operator]
        freeze(self.model, recipe.train.freeze)
        self.optimizer = build_optimizer(self.model, recipe.optimizer, self.lengths.step_samples)

    def steps(self, part: Part = lambda name: nullcontext()) -> Iterator[int]:
        """Takes steps without end, epoch after epoch; gives each one's number of images. ``part(name)`` is entered
        around each of ``PARTS``, and left when the device is through with it."""
        batches = self._batches()
        accumulated = self.recipe.train.accumulation_steps
        while True:
            images = 0
            self.optimizer.zero_grad(set_to_none=True)
            for _ in range(accumulated):
                with part("data"):
                    batch = next(batches).to(self.device)
                images += len(batch)
                with part("forward"), autocast(self.recipe.train.precision, self.device):
                    losses = self.task.step(self.model, batch).losses
                    loss: Tensor = torch.stack([*losses.values()]).sum() / max(len(batch), 1)
                    synchronise(self.device)
                with part("backward"):
                    loss.backward()
                    synchronise(self.device)
            with part("optimizer"):
                self.optimizer.step()
                synchronise(self.device)
            yield images

    def _batches(self) -> Iterator[Batch]:
        def epoch(number: int) -> Iterator[Batch]:
            made = self.task.training_batches(self.splits.train, seed=self.recipe.train.seed, epoch=number)
            return iter(training_loader(made, accumulation_steps=self.recipe.train.accumulation_steps))

        every = chain.from_iterable(map(epoch, range(1_000_000)))
        return (batch for batch in every if len(batch))


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
    check_presumed_weights(settle(recipe))  # no time is told of a run that would be refused
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

    trial = Trial(recipe)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (trial.device.type == "cuda")
    taking = trial.steps(record_function)
    for _ in islice(taking, warm_up):
        pass
    with torch_profile(activities=activities) as found:
        images = sum(islice(taking, steps))
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    accumulated = trial.recipe.train.accumulation_steps
    for event in found.events() or []:
        if event.name in parts and event.device_type == torch.autograd.DeviceType.CPU:
            parts[event.name].append(event.time_range.elapsed_us() / 1000)
    for name in PARTS[:3]:
        parts[name] = [sum(parts[name][i : i + accumulated]) for i in range(0, len(parts[name]), accumulated)]
    on_gpu = trial.device.type == "cuda"
    rows = [
        (
            each.key,
            (each.self_device_time_total if on_gpu else each.self_cpu_time_total) / 1000 / steps,
            each.count / steps,
        )
        for each in found.key_averages()
        if each.key not in parts
    ]
    longest = sorted(rows, key=lambda row: -row[1])[:operators]
    return Profile(parts, longest, images // steps, str(trial.device), steps)


def synchronise(device: torch.device) -> None:
    """Wait until ``device`` has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

"""A run's model converted on its own data, with the controls that its accuracy is to be read beside."""

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosshead.conversion.costs import forward_costs
from crosshead.conversion.distilling import (
    Lesson,
    Stepper,
    check_steps,
    convert_attention,
    repeated,
    train,
)
from crosshead.conversion.outcome import (
    BEFORE,
    CONVERTED,
    PLAIN,
    SWAPPED,
    TUNED,
    Conversion,
    Row,
    conditions,
)
from crosshead.data.base import Batch, Splits
from crosshead.data.batching.loader import training_loader
from crosshead.data.transforms.pipeline import image_size
from crosshead.swap import swap_attention
from crosshead.tasks import Task
from crosshead.train.inference import LoadedRun, evaluate_on, load_run

MATCHED = 4  # with ``match`` one step in so many matches layers
_TIMED = 5  # steps of each way


def convert_run(
    folder: Path,
    kind: str = "imhsa",
    *,
    epochs: float = 2.0,
    match: bool = False,
    labels: bool = True,
    lrs: Sequence[float] = (1e-3, 2.5e-4),
    seed: int = 0,
    controls: bool = True,
    checkpoint: str = "best",
    device: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Conversion:
    """Converts the model of a finished classifier's run on its training images, and judges it on its test images.

    Args:
        folder: of the run.
        kind, labels, options: as of ``convert_attention``.
        epochs: of the run's training images, augmented as its recipe says.
        match: begin with a quarter of the steps that match attention layer by layer.
        lrs: rates to try, of the conversion and of each control; the best on the validation images is told of.
        seed: of the images' order and augmentation.
        controls: train for as long, on the labels alone, the swapped model, and the model as it was.

    Raises:
        ValueError: no run, one of another task, or what ``convert_attention`` refuses.
    """
    trained = load_run(folder, checkpoint=checkpoint, device=device)
    if trained.task.answers != "classes":
        raise ValueError(
            f"{folder} is of the task {trained.recipe.task.name}; expected a run that classifies pictures"
        )
    if not lrs or min(lrs) <= 0:
        raise ValueError(f"expected at least one rate above 0, got {list(lrs)}")
    if not epochs > 0:
        raise ValueError(f"expected a share of the training images above 0, such as 2 epochs, got {epochs}")
    setting = _Setting(trained, trained.open_data(), seed)
    steps = max(1, math.ceil(epochs * setting.steps_per_epoch))
    match_steps = steps // MATCHED if match else 0
    check_steps(steps, match_steps)
    swapped = copy.deepcopy(trained.model)
    paths = [each.path for each in swap_attention(swapped, kind, init="paper", **options).replaced]
    seconds = setting.step_seconds(swapped, paths, labels)
    rows = [setting.row(BEFORE, trained.model, 0, 0.0), setting.row(SWAPPED, swapped, 0, 0.0)]
    spent = match_steps * seconds["match"] + (steps - match_steps) * seconds["distil"]

    def converted(lr: float) -> nn.Module:
        found = convert_attention(
            trained.model, setting, kind, steps=steps, match_steps=match_steps, labels=labels, loss=setting.loss,
            lr=lr, **options,
        )  # fmt: skip
        return found.model

    model, row = setting.best(CONVERTED, converted, lrs, steps, spent, tell)
    rows.append(row)
    for what, start in ((TUNED, swapped), (PLAIN, trained.model)):
        if controls:
            taken = max(1, round(spent / seconds[what]))
            tune = _tuning(start, setting, paths, taken)
            rows.append(setting.best(what, tune, lrs, taken, taken * seconds[what], tell)[1])
    size = image_size(trained.recipe.data)
    costs = forward_costs({BEFORE: trained.model, kind: model}, size, trained.info.channels)
    images = f"{len(getattr(setting.splits, setting.split)):,} {setting.split} images"
    return Conversion(
        model,
        kind,
        dict(options),
        "accuracy",
        images,
        labels,
        match_steps,
        seed,
        rows,
        costs,
        conditions(model),
    )


def _tuning(
    start: nn.Module, setting: "_Setting", paths: list[str], steps: int
) -> Callable[[float], nn.Module]:
    """Plain fine-tuning on the labels, from ``start``."""

    def tuned(lr: float) -> nn.Module:
        model = copy.deepcopy(start)
        train(model, Lesson(None, model, paths, True, setting.loss), setting, steps=steps, lr=lr)
        return model.eval()

    return tuned


class _Setting:
    """The run's data, as all ways are given it: iterating gives (images, batch), the same ones each time."""

    def __init__(self, trained: LoadedRun, splits: Splits, seed: int) -> None:
        self.trained, self.splits, self.seed = trained, splits, seed
        self.task: Task = trained.task
        self.split = "validation" if splits.test is None else "test"
        self.steps_per_epoch = len(self._epoch(0))
        if not self.steps_per_epoch:
            raise ValueError(
                f"the {len(splits.train)} training images fill no batch of {trained.recipe.data.batch_size}"
            )

    def _epoch(self, epoch: int) -> Any:
        return training_loader(self.task.training_batches(self.splits.train, seed=self.seed, epoch=epoch))

    def __iter__(self) -> Iterator[tuple[Tensor, Batch]]:
        for epoch in count():
            for batch in self._epoch(epoch):
                yield batch.images, batch

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The run's own loss, of logits that are there."""
        given = self.task.step(_Given(logits), batch)
        return torch.stack(list(given.losses.values())).sum() / len(batch)

    def judged(self, model: nn.Module, split: str) -> float:
        return evaluate_on(replace(self.trained, model=model), self.splits, split).metrics["accuracy"]

    def row(self, what: str, model: nn.Module, steps: int, seconds: float, lr: float | None = None) -> Row:
        validation = self.judged(model, "validation")
        found = validation if self.split == "validation" else self.judged(model, self.split)
        return Row(what, steps, seconds, found, validation, lr)

    def best(
        self,
        what: str,
        made: Callable[[float], nn.Module],
        lrs: Sequence[float],
        steps: int,
        seconds: float,
        tell: Callable[[str], None],
    ) -> tuple[nn.Module, Row]:
        """The model of the rate that does best on the validation images, and what it gets right of the others."""
        tried = []
        for lr in lrs:
            model = made(lr)
            tried.append((self.judged(model, "validation"), lr, model))
            tell(f"{what}, {steps} steps at rate {lr:g}: {tried[-1][0]:.2%} of the validation images")
        _, lr, model = max(tried, key=lambda each: each[0])
        return model, self.row(what, model, steps, seconds, lr)

    def step_seconds(self, swapped: nn.Module, paths: list[str], labels: bool) -> dict[str, float]:
        """The median time of a step of each way, taken in turn on copies."""
        before = self.trained.model
        student, tuned, plain = copy.deepcopy(swapped), copy.deepcopy(swapped), copy.deepcopy(before)
        told = Lesson(before, student, paths, labels, self.loss)
        ways: dict[str, tuple[nn.Module, Callable[[Any], Tensor]]] = {
            "distil": (student, told.of),
            "match": (student, told.of_layers),
            TUNED: (tuned, Lesson(None, tuned, paths, True, self.loss).of),
            PLAIN: (plain, Lesson(None, plain, paths, True, self.loss).of),
        }
        steppers = {name: Stepper(model.train(), 1e-6, 2 * _TIMED) for name, (model, _) in ways.items()}
        found: dict[str, list[float]] = {name: [] for name in ways}
        batches = repeated(self)
        for number in range(_TIMED + 2):
            batch = next(batches)
            for name, (_, teach) in ways.items():
                begun = _now(batch[0])
                steppers[name].step(teach(batch))
                if number >= 2:  # the first ones warm up
                    found[name].append(_now(batch[0]) - begun)
        return {name: statistics.median(seconds) for name, seconds in found.items()}


class _Given(nn.Module):
    """A network whose answer is there already."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Any) -> Tensor:
        return self.logits


def _now(images: Tensor) -> float:
    """Processor time, which other programs on a CPU take nothing of; of a GPU, when it is through."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()

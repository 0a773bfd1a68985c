"""One model trained on one probe: accuracy against steps."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .model import ProbeModel
from .probe import IGNORED

EVALUATIONS = 20
_WARM_UP = 100  # steps, at most a fifth of all
_TEST_SEED = 0  # one test set for all seeds and kinds
_TEST = {"on the way": 128, "at the end": 512}  # sequences
_MARK = 0.9  # the accuracy whose first step is told


@dataclass(frozen=True)
class Run:
    """One seed of one kind. ``curve`` has (step, accuracy) on test sequences; accuracies are shares of 1."""

    seed: int
    accuracy: float
    curve: list[tuple[int, float]] = field(repr=False)

    @property
    def steps_to_mark(self) -> int | None:
        """The first evaluated step with an accuracy of .9; None where there is none."""
        return next((step for step, accuracy in self.curve if accuracy >= _MARK), None)


class Trainer:
    """AdamW over sequences that never come twice; the rate rises over the first steps and falls by a cosine."""

    def __init__(self, model: ProbeModel, seed: int, steps: int, batch_size: int, lr: float) -> None:
        self.model, self.seed, self.steps, self.batch_size, self.lr = model, seed, steps, batch_size, lr
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0, betas=(0.9, 0.99))

    def step(self, number: int) -> None:
        """Step ``number``, from 0."""
        probe, warm_up = self.model.probe, min(_WARM_UP, max(1, self.steps // 5))
        rate = self.lr * min(1.0, (number + 1) / warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * number / self.steps))
        inputs, right = probe.batch(self.seed, "train", number, self.batch_size)
        logits = self.model(inputs, right.shape[1])
        loss = F.cross_entropy(logits.flatten(0, -2), right.flatten(), ignore_index=IGNORED)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def run(self) -> Run:
        probe = self.model.probe
        every = max(1, self.steps // EVALUATIONS)
        on_the_way, at_the_end = (probe.batch(_TEST_SEED, "test", i, n) for i, n in enumerate(_TEST.values()))
        curve = []
        for number in range(self.steps):
            self.step(number)
            if (number + 1) % every == 0 and number + 1 < self.steps:
                curve.append((number + 1, accuracy(self.model, *on_the_way)))
        last = accuracy(self.model, *at_the_end)
        return Run(self.seed, last, [*curve, (self.steps, last)])


@torch.no_grad()
def accuracy(model: ProbeModel, inputs: Tensor, right: Tensor) -> float:
    """The share of right answers among the questions that have one."""
    model.eval()
    hits = model(inputs, right.shape[1]).argmax(-1) == right
    model.train()
    return hits[right != IGNORED].float().mean().item()


def step_seconds(models: list[ProbeModel], batch_size: int, rounds: int = 12) -> list[float]:
    """The median time of this process's processors that a training step of each model takes, in turn."""
    trainers = [Trainer(model, 0, 10 * rounds, batch_size, 1e-3) for model in models]
    seconds: list[list[float]] = [[] for _ in models]
    for number in range(rounds + 3):
        for trainer, found in zip(trainers, seconds, strict=True):
            begun = time.process_time()
            trainer.step(number)
            found.append(time.process_time() - begun)
    return [statistics.median(found[3:]) for found in seconds]

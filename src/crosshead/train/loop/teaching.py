"""What a trained classifier says of each batch as a second target: distillation (Hinton et al., arXiv 1503.02531).

L = (1 - w) · loss of the labels + w · T² · KL(softmax(teacher / T) || softmax(student / T))

T is ``train.teacher.temperature`` and w ``train.teacher.weight``; T² keeps the two parts' gradients alike in size.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosshead.data.base import Batch
from crosshead.tasks import Step, Task

TERM = "teacher"  # the name of its part of the loss


@dataclass(frozen=True)
class Teacher:
    """A model in evaluation mode, (B, C, H, W) -> logits (B, classes), on the device where the student learns.

    ``factor`` and ``shift``, (1, C, 1, 1) or None, bring pictures that were normalised for the student to what the
    teacher was trained on; ``digest`` is of the file of its weights, ``name`` where it comes from.
    """

    model: nn.Module
    temperature: float
    weight: float
    name: str
    digest: str
    factor: Tensor | None = None
    shift: Tensor | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        if self.factor is not None and self.shift is not None:
            images = images * self.factor + self.shift
        logits: Tensor = self.model(images)
        return logits.float()


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher || student) summed over the batch, float32; logits (B, classes)."""
    wanted = (teacher.float() / temperature).log_softmax(-1)
    said = (student.float() / temperature).log_softmax(-1)
    return F.kl_div(said, wanted, reduction="sum", log_target=True) * temperature**2


class Taught:
    """A task of one class a picture, whose steps have the teacher's part in their loss; all else is the task's own."""

    def __init__(self, task: Task, teacher: Teacher) -> None:
        self._task, self._teacher = task, teacher
        self.losses = (*task.losses, TERM)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss_divisors(self, batch: Batch) -> dict[str, float] | None:
        own = self._task.loss_divisors(batch)
        return None if own is None else own | {TERM: float(len(batch))}

    def step(self, network: nn.Module, batch: Batch) -> Step:
        heard: list[Tensor] = []

        def listening(images: Tensor) -> Tensor:
            heard.append(network(images))
            return heard[-1]

        found = self._task.step(listening, batch)  # type: ignore[arg-type]  # it calls it once, as a network
        weight, logits = self._teacher.weight, self._teacher(batch.images)
        taught = weight * distillation(heard[0], logits, self._teacher.temperature)
        own = {name: (1 - weight) * loss for name, loss in found.losses.items()}
        return Step(own | {TERM: taught}, found.counts)

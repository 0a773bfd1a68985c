"""A model's attention swapped, and the whole taught by what it was, all blocks at once."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from crosshead.conversion.objectives import answers_alike, attention_error, features_alike, has_classes
from crosshead.swap import SwapReport, swap_attention

Loss = Callable[[Tensor, Any], Tensor]
Batches = Iterable[Any]
_WARM_UP = 0.1  # of the steps
_WEIGHT_DECAY = 0.05
_CLIP = 1.0


@dataclass(frozen=True)
class Converted:
    """``model``, in evaluation mode, and what was put into it; ``losses`` has one number a step."""

    model: nn.Module
    swapped: SwapReport
    losses: list[float] = field(repr=False)


def convert_attention(
    model: nn.Module,
    batches: Batches,
    kind: str = "imhsa",
    *,
    steps: int,
    match_steps: int = 0,
    labels: bool = True,
    loss: Loss = F.cross_entropy,
    lr: float = 1e-3,
    attention_only: bool = False,
    **options: Any,
) -> Converted:
    """A copy of ``model`` whose attention is of another kind, and which was taught to answer as ``model`` does.

    With labels the loss is half cross entropy and half the KL divergence from the model's own classes at temperature 2;
    without, that divergence alone. A model without classes (``num_classes=0``) is held to its tokens.

    Args:
        model: trained; it stays as it is.
        batches: images (B, C, H, W), or (images, targets); iterated again as often as the steps ask for.
        kind: of interaction; ``options`` are its own (``landmarks=7``), for ``swap_attention``.
        steps: in all; the first ``match_steps`` of them teach each attention by itself, without labels, which is
            quicker a step and comes less far.
        loss: (logits, targets) -> a scalar, of the labels.
        lr: the highest rate of AdamW; it rises over a tenth of the steps and falls by a cosine.
        attention_only: train the new attention and nothing else.

    Raises:
        ValueError: attention that can't be swapped, labels for a model without classes, no batch, bad counts.
    """
    check_steps(steps, match_steps)
    check_labels(model, labels)
    teacher = model
    student = copy.deepcopy(model)
    swapped = swap_attention(student, kind, init="paper", **options)
    paths = list(dict.fromkeys(each.path for each in swapped.replaced))
    lesson = Lesson(teacher, student, paths, labels, loss)
    was_training = teacher.training
    teacher.eval()
    try:
        losses = train(
            student, lesson, batches, steps=steps, match_steps=match_steps, lr=lr,
            trained=attention_of(student, paths) if attention_only else None,
        )  # fmt: skip
    finally:
        teacher.train(was_training)
    return Converted(student.eval(), swapped, losses)


@dataclass(frozen=True)
class Lesson:
    """What the student is told of a batch; with ``teacher`` None by its labels alone."""

    teacher: nn.Module | None
    student: nn.Module
    paths: list[str]
    labels: bool
    loss: Loss

    def of(self, batch: Any) -> Tensor:
        images, targets = unpacked(batch, self.device)
        if self.teacher is None:
            return self.loss(self.student(images), targets)
        if not has_classes(self.teacher):
            return features_alike(self.student, self.teacher, images)
        answers = self.student(images)
        with torch.no_grad():
            wanted = self.teacher(images)
        alike = answers_alike(answers, wanted)
        return (alike + self.loss(answers, targets)) / 2 if self.labels else alike

    def of_layers(self, batch: Any) -> Tensor:
        assert self.teacher is not None
        return attention_error(self.student, self.teacher, unpacked(batch, self.device)[0], self.paths)

    @property
    def device(self) -> torch.device:
        return next(self.student.parameters()).device


def train(
    student: nn.Module,
    lesson: Lesson,
    batches: Batches,
    *,
    steps: int,
    match_steps: int = 0,
    lr: float,
    trained: set[nn.Parameter] | None = None,
) -> list[float]:
    """Takes the steps; the loss of each. Only ``trained`` parameters change, where these are named."""
    endless = repeated(batches)
    losses: list[float] = []
    student.train()
    for count, teach, chosen in (
        (match_steps, lesson.of_layers, attention_of(student, lesson.paths)),
        (steps - match_steps, lesson.of, trained),
    ):
        if not count:
            continue
        with _only(student, chosen):
            stepper = Stepper(student, lr, count)
            losses += [stepper.step(teach(next(endless))) for _ in range(count)]
    return losses


class Stepper:
    """AdamW, whose rate rises and falls over ``steps``; gradients are clipped."""

    def __init__(self, model: nn.Module, lr: float, steps: int) -> None:
        spared: Any = getattr(model, "no_weight_decay", set)()
        groups = param_groups_weight_decay(model, _WEIGHT_DECAY, no_weight_decay_list=spared)
        self.optimizer = torch.optim.AdamW(groups, lr)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.lr, self.steps, self.done = lr, steps, 0

    def step(self, loss: Tensor) -> float:
        warm_up = max(1, round(_WARM_UP * self.steps))
        rate = self.lr * min(1.0, (self.done + 1) / warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, _CLIP)
        self.optimizer.step()
        self.done += 1
        return loss.item()


def attention_of(model: nn.Module, paths: Iterable[str]) -> set[nn.Parameter]:
    return {p for path in paths for p in model.get_submodule(path).parameters()}


class _only:
    """Within it no other parameters ask for a gradient; all may where ``chosen`` is None."""

    def __init__(self, model: nn.Module, chosen: set[nn.Parameter] | None) -> None:
        self.frozen = [
            p for p in model.parameters() if chosen is not None and p not in chosen and p.requires_grad
        ]

    def __enter__(self) -> None:
        for parameter in self.frozen:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for parameter in self.frozen:
            parameter.requires_grad_(True)


def unpacked(batch: Any, device: torch.device) -> tuple[Tensor, Any]:
    """Images and targets (None without any), where the model is."""
    images, targets = batch if isinstance(batch, tuple | list) else (batch, None)
    return images.to(device), targets.to(device) if hasattr(targets, "to") else targets


def repeated(batches: Batches) -> Iterator[Any]:
    """The batches, from the beginning again and again."""
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                "there is no batch (any more): expected images to convert with, in something that can be iterated "
                "again, such as a list or a DataLoader"
            )


def check_steps(steps: int, match_steps: int) -> None:
    if steps < 1 or not 0 <= match_steps <= steps:
        raise ValueError(
            f"expected at least one step, and of these from none to all for matching, got {steps} and {match_steps}"
        )


def check_labels(model: nn.Module, labels: bool) -> None:
    if labels and not has_classes(model):
        raise ValueError(
            f"{type(model).__name__} has no classes, and labels say nothing to it: pass labels=False (--no-labels)"
        )

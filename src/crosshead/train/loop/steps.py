"""One optimizer step: forward, backward, a decision of all processes, and only then the update."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from crosshead.data.base import Batch
from crosshead.data.random import key
from crosshead.tasks import Step
from crosshead.train.distributed.sharding import whole
from crosshead.train.distributed.watchdog import Phase
from crosshead.train.loop.build import Training
from crosshead.train.loop.devices import autocast
from crosshead.train.loop.teaching import Taught


@dataclass(frozen=True)
class Requests:
    """What a process asks of all, agreed on in the same exchange as the step's numbers."""

    stop: bool = False
    save: bool = False
    events: bool = False


@dataclass(frozen=True)
class StepOutcome:
    """One step as all processes agree on it.

    ``losses`` and ``counts`` by name, means over units and images; ``own_fault``: it was this process's loss that was
    not finite.
    """

    loss: float
    losses: dict[str, float]
    counts: dict[str, float]
    images: int
    grad_norm: float
    skipped: bool
    counts_as_bad: bool
    own_fault: bool
    requests: Requests


PARTS = ("data", "forward", "backward", "optimizer")
Part = Callable[[str], AbstractContextManager[object]]


def _unmarked(part: str) -> AbstractContextManager[object]:
    return nullcontext()


class TrainStep:
    """Makes optimizer steps on the run's state. ``part(name)`` is entered around each of ``PARTS`` of a step."""

    def __init__(self, training: Training, part: Part = _unmarked) -> None:
        self.training, self.state = training, training.state
        self.task, self.recipe = training.task, training.recipe
        if training.teacher is not None:
            self.task = Taught(training.task, training.teacher)  # type: ignore[assignment]  # hands all else on
        self.part = part
        self.device = next(training.state.model.parameters()).device
        self.memory_format = (
            torch.channels_last if training.recipe.train.channels_last else torch.contiguous_format
        )
        self.parameters = [p for p in training.state.model.parameters() if p.requires_grad]
        # Running statistics change in the forward pass, before anyone knows whether the step is good.
        self.buffers = [b for b in training.state.model.buffers() if b.is_floating_point()]

    def __call__(self, batches: Sequence[Batch], requests: Callable[[], Requests]) -> StepOutcome:
        """Take the step that ``batches``, one for each accumulation, ask for.

        ``requests`` is called after the backward pass, so that what arrives during it is heard.
        """
        kept_buffers = [b.clone() for b in self.buffers]
        self.state.optimizer.zero_grad(set_to_none=True)
        units = self._units(batches)
        parts = []
        for micro, batch in enumerate(batches):
            seed_model(
                self.device, self.recipe.train.seed, self.state.progress.step, micro, self.training.world.rank
            )
            with self.part("data"):
                moved = batch.to(self.device, self.memory_format)
            parts.append(self._backward(moved, units, micro, synchronise=micro == len(batches) - 1))
        with self.part("optimizer"):
            norm = self._gradient_norm()
            outcome = self._decide(parts, units, sum(map(len, batches)), norm, requests())
            if outcome.skipped:
                self._undo(kept_buffers)
            else:
                self._update(norm)
        return outcome

    def _units(self, batches: Sequence[Batch]) -> dict[str, float] | None:
        """What each loss is divided by, over all processes and batches; None where that is the images."""
        parts = [self.task.loss_divisors(batch) for batch in batches]
        if any(part is None for part in parts):
            return None
        sums = [sum(part[name] for part in parts if part is not None) for name in self.task.losses]
        everywhere = self.training.world.sum(torch.tensor(sums, dtype=torch.float64)).tolist()
        return dict(zip(self.task.losses, everywhere, strict=True))

    def _backward(
        self, batch: Batch, units: dict[str, float] | None, micro: int, *, synchronise: bool
    ) -> Step:
        """Add a batch's gradient; returns the sums of its losses and its counts, without gradients.

        A loss over images is divided by the images that the step was meant to have: an image that could not be read
        adds nothing, and the others weigh the same on any number of processes. The exchange takes the mean over the
        processes, so what is summed over all of them is divided by their mean share.
        """
        exchange: AbstractContextManager[object] = nullcontext()
        network = self.training.network
        if isinstance(network, FSDPModule):
            network.set_requires_gradient_sync(synchronise)
        elif not synchronise and isinstance(network, DistributedDataParallel):
            exchange = network.no_sync()
        step = self.state.progress.step
        with exchange:
            self.training.watchdog.beat(step, Phase.FORWARD_BACKWARD, 2 * micro)
            with self.part("forward"), autocast(self.recipe.train.precision, self.device):
                if len(batch):
                    found = self.task.step(network, batch)
                else:  # every process takes part in the exchange, even one whose images were all unreadable
                    found = self.task.step(
                        network, self.task.empty_batch().to(self.device, self.memory_format)
                    )
                    zeros = {name: loss * 0 for name, loss in found.losses.items()}
                    found = Step(zeros, dict.fromkeys(self.task.counts, torch.zeros((), device=self.device)))
            self.training.watchdog.beat(step, Phase.FORWARD_BACKWARD, 2 * micro + 1)
            with self.part("backward"):
                scaled = self._mean(found.losses, units)
                (scaled if self.state.scaler is None else self.state.scaler.scale(scaled)).backward()
        losses = {name: loss.detach() for name, loss in found.losses.items()}
        return Step(losses, found.counts)

    def _mean(self, losses: dict[str, Tensor], units: dict[str, float] | None) -> Tensor:
        wanted = self.recipe.data.batch_size * self.recipe.train.accumulation_steps
        if units is None:
            shares = [loss / wanted for loss in losses.values()]
        else:
            shares = [
                loss / (max(units[name], 1.0) / self.training.world.size) for name, loss in losses.items()
            ]
        return reduce(torch.add, shares)

    def _gradient_norm(self) -> Tensor:
        if self.state.scaler is not None:
            self.state.scaler.unscale_(self.state.optimizer)
        return whole(get_total_norm([p.grad for p in self.parameters if p.grad is not None]))

    def _decide(
        self, parts: list[Step], units: dict[str, float] | None, images: int, norm: Tensor, asked: Requests
    ) -> StepOutcome:
        """Exchange the step's numbers; every process comes to the same outcome."""
        names, counted = self.task.losses, self.task.counts
        like = parts[0].losses[names[0]]
        losses = [part.losses[name] for name in names for part in parts]
        counts = [part.counts[name] for name in counted for part in parts if name in part.counts]
        # The one place where the step waits for a GPU.
        *values, norm_value = torch.stack([each.to(like) for each in (*losses, *counts, norm)]).tolist()
        drawn = iter(values)
        loss_sums = [sum(next(drawn) for _ in parts) for _ in names]
        count_sums = [sum(next(drawn) for part in parts if name in part.counts) for name in counted]
        left_out = [any(name not in part.counts for part in parts) for name in counted]
        own_fault = not all(math.isfinite(value) for value in loss_sums)
        bad_gradient = not math.isfinite(norm_value)
        judged = [*loss_sums, *count_sums, *left_out, images, own_fault, bad_gradient]
        numbers = torch.tensor([*judged, asked.stop, asked.save, asked.events], dtype=torch.float64)
        agreed = iter(self.training.world.sum(numbers).tolist())
        loss_sums, count_sums, left_out = ([next(agreed) for _ in each] for each in (names, counted, counted))
        count, bad_losses, bad_gradients, stop, save, events = agreed
        skipped = bad_losses > 0 or bad_gradients > 0
        # Float16's scale starts too high on purpose and is halved until it fits: that is not a fault of the run.
        scaler = self.state.scaler
        searching = scaler is not None and not bad_losses and scaler.get_scale() > 1
        over = [count if units is None else units[name] for name in names]
        means = [value / by if by else 0.0 for value, by in zip(loss_sums, over, strict=True)]
        shown = zip(counted, count_sums, left_out, strict=True)
        return StepOutcome(
            loss=sum(means),
            losses=dict(zip(names, means, strict=True)),
            counts={name: value / count for name, value, missing in shown if count and not missing},
            images=round(count),
            grad_norm=norm_value,
            skipped=skipped,
            counts_as_bad=skipped and not searching,
            own_fault=own_fault,
            requests=Requests(stop > 0, save > 0, events > 0),
        )

    def _update(self, norm: Tensor) -> None:
        clip = self.recipe.optimizer.clip_grad
        if clip is not None:
            clip_grads_with_norm_(self.parameters, clip, norm)
        if self.state.scaler is None:
            self.state.optimizer.step()
        else:
            self.state.scaler.step(self.state.optimizer)
            self.state.scaler.update()
        if self.state.ema is not None:
            self.state.ema.update(self.state.model)

    def _undo(self, kept_buffers: list[Tensor]) -> None:
        self.state.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, kept in zip(self.buffers, kept_buffers, strict=True):
                buffer.copy_(kept)
        if self.state.scaler is not None:
            self.state.scaler.update()


def seed_model(device: torch.device, seed: int, step: int, micro: int, rank: int) -> None:
    """Seed what dropout and drop path draw from, as a function of the place in the run: nothing is left to save."""
    drawn = key(f"model {micro} {rank}", seed, 0, step) >> 1
    if device.type == "cpu":
        # ``torch.manual_seed`` also seeds accelerators, and formats a stack trace (0.5 ms) where none was used yet.
        torch.default_generator.manual_seed(drawn)
    else:
        torch.manual_seed(drawn)


def describe_bad(batches: Sequence[Batch]) -> list[str]:
    """The names of the images that are not finite themselves; of all images where each one is."""
    names = [name for batch in batches for name in batch.names]
    broken = [
        name
        for batch in batches
        for name, image in zip(batch.names, batch.images, strict=False)
        if not image.isfinite().all()
    ]
    return broken or names

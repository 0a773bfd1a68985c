"""One optimizer step: forward, backward, a decision of all processes, and only then the update."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from crosshead.data.loading.batch import Batch
from crosshead.data.loading.keys import key
from crosshead.recipe.schema import Recipe
from crosshead.train.keeping.state import TrainState
from crosshead.train.loop.devices import autocast
from crosshead.train.processes.distributed import World
from crosshead.train.processes.sharding import whole
from crosshead.train.processes.watchdog import Phase, Watchdog


class Task(Protocol):
    """What training needs of a task; more of ``primary`` is better."""

    primary: str

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor: ...

    def hits(self, predictions: Tensor, batch: Batch) -> Tensor | None: ...


@dataclass(frozen=True)
class Requests:
    """What a process asks of all, settled in the same exchange as the step's numbers."""

    stop: bool = False
    save: bool = False
    events: bool = False


@dataclass(frozen=True)
class StepOutcome:
    """One step as all processes agree on it. ``own_fault``: it was this process's loss that was not finite."""

    loss: float
    accuracy: float | None
    images: int
    grad_norm: float
    skipped: bool
    counts_as_bad: bool
    own_fault: bool
    requests: Requests


class Stepper:
    """Makes optimizer steps on ``state``; ``network`` is its model, wrapped for several processes or not."""

    def __init__(
        self,
        state: TrainState,
        network: nn.Module,
        task: Task,
        recipe: Recipe,
        world: World,
        watchdog: Watchdog,
    ) -> None:
        self.state, self.network, self.task = state, network, task
        self.recipe, self.world, self.watchdog = recipe, world, watchdog
        self.device = next(state.model.parameters()).device
        self.memory_format = torch.channels_last if recipe.train.channels_last else torch.contiguous_format
        self.parameters = [p for p in state.model.parameters() if p.requires_grad]
        # Running statistics change in the forward pass, before anyone knows whether the step is good.
        self.buffers = [b for b in state.model.buffers() if b.is_floating_point()]

    def __call__(self, batches: Sequence[Batch], requests: Callable[[], Requests]) -> StepOutcome:
        """Take the step that ``batches``, one for each accumulation, ask for.

        ``requests`` is called after the backward pass, so that what arrives during it is heard.
        """
        kept_buffers = [b.clone() for b in self.buffers]
        self.state.optimizer.zero_grad(set_to_none=True)
        losses, hits = [], []
        for micro, batch in enumerate(batches):
            seed_model(self.device, self.recipe.train.seed, self.state.progress.step, micro, self.world.rank)
            loss, right = self._backward(
                batch.to(self.device, self.memory_format), micro, synchronise=micro == len(batches) - 1
            )
            losses.append(loss)
            if right is not None:
                hits.append(right.to(loss))
        images = sum(map(len, batches))
        norm = self._gradient_norm()
        outcome = self._decide(losses, hits, images, norm, requests())
        if outcome.skipped:
            self._undo(kept_buffers)
        else:
            self._update(norm)
        return outcome

    def _backward(self, batch: Batch, micro: int, *, synchronise: bool) -> tuple[Tensor, Tensor | None]:
        """Add a batch's gradient; returns the sum of its losses and its number of hits.

        The loss is the sum over the images divided by the size that the batch was meant to have: an image that
        could not be read adds nothing, and the others weigh the same on any number of processes.
        """
        exchange: AbstractContextManager[object] = nullcontext()
        if isinstance(self.network, FSDPModule):
            self.network.set_requires_gradient_sync(synchronise)
        elif not synchronise and isinstance(self.network, DistributedDataParallel):
            exchange = self.network.no_sync()
        images, step = len(batch), self.state.progress.step
        with exchange:
            self.watchdog.beat(step, Phase.FORWARD_BACKWARD, 2 * micro)
            with autocast(self.recipe.train.precision, self.device):
                if images:
                    predictions = self.network(batch.images)
                    loss = self.task.loss(predictions, batch) * images
                    hits = self.task.hits(predictions.detach(), batch)
                else:  # every process takes part in the exchange, even one whose images were all unreadable
                    blank = batch.images.new_zeros(1, *batch.images.shape[1:])
                    loss = self.network(blank).float().sum() * 0
                    hits = torch.zeros_like(loss)
            self.watchdog.beat(step, Phase.FORWARD_BACKWARD, 2 * micro + 1)
            wanted = self.recipe.data.batch_size * self.recipe.train.accumulation_steps
            scaled = loss / wanted
            (scaled if self.state.scaler is None else self.state.scaler.scale(scaled)).backward()
        return loss.detach(), hits

    def _gradient_norm(self) -> Tensor:
        if self.state.scaler is not None:
            self.state.scaler.unscale_(self.state.optimizer)
        return whole(get_total_norm([p.grad for p in self.parameters if p.grad is not None]))

    def _decide(
        self, losses: list[Tensor], hits: list[Tensor], images: int, norm: Tensor, asked: Requests
    ) -> StepOutcome:
        """Exchange the step's numbers; every process comes to the same outcome."""
        # The one place where the step waits for a GPU.
        *values, norm_value = torch.stack([*losses, *hits, norm.to(losses[0])]).tolist()
        loss_sum, hit_sum = sum(values[: len(losses)]), sum(values[len(losses) :])
        own_fault = not math.isfinite(loss_sum)
        bad_gradient = not math.isfinite(norm_value)
        mixed = len(hits) < len(losses)
        judged = [loss_sum, hit_sum, images, own_fault, bad_gradient, mixed]
        numbers = torch.tensor([*judged, asked.stop, asked.save, asked.events], dtype=torch.float64)
        agreed = self.world.sum(numbers).tolist()
        loss_sum, hit_sum, count, bad_losses, bad_gradients, mixed_count, stop, save, events = agreed
        skipped = bad_losses > 0 or bad_gradients > 0
        # Float16's scale starts too high on purpose and is halved until it fits: that is not a fault of the run.
        searching = self.state.scaler is not None and not bad_losses and self.state.scaler.get_scale() > 1
        return StepOutcome(
            loss=loss_sum / count if count else 0.0,
            accuracy=None if mixed_count or not count else hit_sum / count,
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
        batch.names[place]
        for batch in batches
        for place in (~batch.images.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
        if place < len(batch.names)
    ]
    return broken or names

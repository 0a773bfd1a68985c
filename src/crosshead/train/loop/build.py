"""What takes training steps: model, average, optimizer, loss scaling and rates, alike in a run and in a forecast."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from crosshead.recipe.schema import Recipe, TrainConfig
from crosshead.tasks import Task
from crosshead.train.checkpoint.state import TrainState
from crosshead.train.distributed.groups import World
from crosshead.train.distributed.sharding import is_sharded, shard
from crosshead.train.distributed.watchdog import Watchdog
from crosshead.train.loop.devices import grad_scaler
from crosshead.train.loop.lengths import TrainingLength
from crosshead.train.loop.optim import build_optimizer, build_schedule, freeze, rate_scale
from crosshead.train.loop.teaching import Teacher


@dataclass(frozen=True)
class Training:
    """What takes steps, in one of a run's processes. ``network`` is the state's model, wrapped for several processes or
    not; ``set_rate(step)`` sets the learning rate of a step and gives it."""

    recipe: Recipe
    task: Task
    lengths: TrainingLength
    state: TrainState
    network: nn.Module
    set_rate: Callable[[int], float]
    world: World
    watchdog: Watchdog
    teacher: Teacher | None = None

    @property
    def over(self) -> bool:
        """Whether no step is left."""
        return self.lengths.is_over(self.state.progress, self.recipe.train.patience)

    @property
    def epochs(self) -> float:
        """The progress in epochs; the last one may be a part where the length is given in steps."""
        progress, lengths = self.state.progress, self.lengths
        begun = progress.epoch + progress.samples / lengths.samples_per_epoch
        return min(begun, lengths.total_steps / lengths.steps_per_epoch)


def build_training(
    recipe: Recipe,
    task: Task,
    model: nn.Module,
    lengths: TrainingLength,
    device: torch.device,
    world: World,
    watchdog: Watchdog,
    teacher: Teacher | None = None,
) -> Training:
    """``model`` where it computes, and all that steps of it need."""
    state = _build_state(model, recipe, device, world)
    set_rate = build_schedule(
        state.optimizer,
        recipe.schedule,
        total_steps=lengths.total_steps,
        steps_per_epoch=lengths.steps_per_epoch,
        scale=rate_scale(recipe.optimizer, lengths.step_samples),
    )
    network = _wrap(state.model, device, world)
    return Training(recipe, task, lengths, state, network, set_rate, world, watchdog, teacher)


def place(model: nn.Module, train: TrainConfig, device: torch.device) -> None:
    """Moves a model to where it computes, its weights laid out as they are wanted."""
    model.to(device)
    _lay_out(model, train)


def _lay_out(model: nn.Module, train: TrainConfig) -> None:
    if train.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from the stubs


def _build_state(model: nn.Module, recipe: Recipe, device: torch.device, world: World) -> TrainState:
    """The model where it computes, its average, and the optimizer."""
    sharded = recipe.train.parallel == "shards" and world.size > 1
    if sharded and recipe.train.precision == "fp16":
        raise ValueError("train.parallel=shards has no loss scaling; use train.precision=bf16, or copies")
    freeze(model, recipe.train.freeze)
    if sharded:
        _lay_out(model, recipe.train)
    else:
        place(model, recipe.train, device)
    decay = recipe.train.ema_decay
    ema = None if decay is None else ModelEmaV3(model, decay=decay, foreach=not sharded)
    if sharded:  # moves block by block, so that a device never holds more than one whole block
        for each in (model, *([] if ema is None else [ema.module])):
            shard(each, world, device)
    if recipe.train.compile:
        model.compile()
    total_batch = recipe.data.batch_size * recipe.train.accumulation_steps * world.size
    optimizer = build_optimizer(model, recipe.optimizer, total_batch)
    return TrainState(model, optimizer, ema, grad_scaler(recipe.train, device))


def _wrap(model: nn.Module, device: torch.device, world: World) -> nn.Module:
    if world.size == 1 or is_sharded(model):
        return model
    return DistributedDataParallel(
        model, device_ids=[device.index] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )

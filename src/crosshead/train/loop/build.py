"""What takes training steps: model, average, optimizer, loss scaling and rates, alike in a run and in a forecast."""

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
from crosshead.train.loop.run import Training
from crosshead.train.paired_init import build_paired


def build_model(recipe: Recipe, task: Task, *, from_weights: bool) -> nn.Module:
    """The model of a recipe as training starts with it, on the CPU."""
    if recipe.train.paired_init:
        model = build_paired(lambda: task.build_model(from_weights=from_weights), recipe.train.seed)
    else:
        torch.manual_seed(recipe.train.seed)
        model = task.build_model(from_weights=from_weights)
    if recipe.train.grad_checkpointing:
        _checkpoint_activations(model, recipe.model.name)
    return model


def build_training(
    recipe: Recipe,
    task: Task,
    model: nn.Module,
    lengths: TrainingLength,
    device: torch.device,
    world: World,
    watchdog: Watchdog,
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
    return Training(recipe, task, lengths, state, network, set_rate, world, watchdog)


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


def _checkpoint_activations(model: nn.Module, name: str) -> None:
    switch = getattr(model, "set_grad_checkpointing", None)
    if not callable(switch):
        raise ValueError(f"model {name!r} cannot recompute activations; set train.grad_checkpointing=false")
    switch(True)


def _wrap(model: nn.Module, device: torch.device, world: World) -> nn.Module:
    if world.size == 1 or is_sharded(model):
        return model
    return DistributedDataParallel(
        model, device_ids=[device.index] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )

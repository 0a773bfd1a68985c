"""The optimizer and the learning rate of every step."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from types import MethodType
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, param_groups_layer_decay
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from crosshead.models import classifier_names
from crosshead.recipe.schema import OptimizerConfig, ScheduleConfig


def rate_scale(optimizer: OptimizerConfig, total_batch: int) -> float:
    """What all learning rates of a recipe are multiplied with: 1, or linear in the total batch size."""
    return 1.0 if optimizer.lr_batch_size is None else total_batch / optimizer.lr_batch_size


def build_optimizer(model: nn.Module, config: OptimizerConfig, total_batch: int) -> torch.optim.Optimizer:
    """timm's optimizer of that name. Weight decay spares biases, 1-d parameters (norms) and whatever
    ``model.no_weight_decay()`` lists (position embeddings, relative-position tables, class tokens).

    Raises:
        ValueError: timm has no optimizer of that name.
    """
    try:
        known = get_optimizer_info(config.name)
    except ValueError as error:
        raise ValueError(f"optimizer.name is {config.name!r}, which timm does not have") from error
    options: dict[str, Any] = {}
    if known.has_betas:
        options["betas"] = config.betas
    if known.has_eps:
        options["eps"] = config.eps
    return create_optimizer_v2(
        model if config.layer_decay is None and config.head_lr is None else _groups(model, config),
        opt=config.name,
        lr=config.lr * rate_scale(config, total_batch),
        weight_decay=config.weight_decay,
        **options,
    )


def _groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameter groups whose ``lr_scale`` falls by ``layer_decay`` from block to block towards the input (timm's
    grouping, after BEiT, arXiv 2106.08254), and is ``head_lr / lr`` in the classifier."""
    spared = list(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else []  # type: ignore[operator]
    groups = param_groups_layer_decay(
        model,
        config.weight_decay,
        no_weight_decay_list=spared,
        layer_decay=1.0 if config.layer_decay is None else config.layer_decay,
    )
    if config.head_lr is None:
        return groups
    heads = tuple(f"{name}." for name in classifier_names(model))
    head = {id(parameter) for name, parameter in model.named_parameters() if name.startswith(heads)}
    if not heads or not head:
        raise ValueError("optimizer.head_lr is set, and timm names no classifier of this model; leave it out")
    parts = [
        {**group, "params": params, "lr_scale": scale}
        for group in groups
        for params, scale in (
            ([p for p in group["params"] if id(p) not in head], group["lr_scale"]),
            ([p for p in group["params"] if id(p) in head], config.head_lr / config.lr),
        )
    ]
    return [part for part in parts if part["params"]]


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Leave the parameters whose names match one of ``patterns`` (as file names do: ``blocks.[0-5].*``) as they are.

    A batch norm that is frozen keeps its running statistics too, and normalises with them.

    Raises:
        ValueError: a pattern matches nothing, or nothing is left to train.
    """
    named = dict(model.named_parameters())
    for pattern in patterns:
        found = [name for name in named if fnmatchcase(name, pattern)]
        if not found:
            near = get_close_matches(pattern, named, n=3, cutoff=0.0)
            raise ValueError(
                f"train.freeze: no parameter is like {pattern!r}; the nearest are {', '.join(near)}"
            )
        for name in found:
            named[name].requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in named.values()):
        raise ValueError(f"train.freeze is {list(patterns)}: nothing is left to train")
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.weight is not None and not module.weight.requires_grad:
            module.eval()
            module.train = MethodType(_stay, module)  # type: ignore[method-assign]


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def build_schedule(
    optimizer: torch.optim.Optimizer,
    config: ScheduleConfig,
    *,
    total_steps: int,
    steps_per_epoch: int,
    scale: float,
) -> Callable[[int], float]:
    """A function that sets the learning rate of step ``step`` (from 0) in ``optimizer`` and returns it; groups with an
    ``lr_scale`` get their share of it.

    Linear from ``warmup_lr`` to the optimizer's rate over the warm-up; then timm's schedules: half a cosine or a
    polynomial down to ``min_lr`` at the last step, or steps at the milestones, which count from the start of training.

    Raises:
        ValueError: the warm-up leaves no step to a schedule that falls after it.
    """
    warmup_steps = config.warmup_steps
    if warmup_steps is None:
        warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    falls = config.name in ("cosine", "poly")
    if falls and warmup_steps and warmup_steps >= total_steps:
        raise ValueError(
            f"the warm-up takes {warmup_steps} of {total_steps} steps, and none is left for the {config.name}: lower "
            "schedule.warmup_steps or schedule.warmup_epochs, or train longer"
        )
    warmup: dict[str, Any] = {"warmup_t": warmup_steps, "warmup_lr_init": config.warmup_lr * scale}
    # A fall over one step is none, and that step has the full rate either way: timm warns of 1.
    fall: dict[str, Any] = {"t_initial": max(total_steps - warmup_steps, 2), "lr_min": config.min_lr * scale}
    schedule: Scheduler
    if config.name == "cosine":
        schedule = CosineLRScheduler(optimizer, **fall, **warmup, warmup_prefix=True, t_in_epochs=False)
    elif config.name == "poly":
        power = config.power
        schedule = PolyLRScheduler(
            optimizer, power=power, **fall, **warmup, warmup_prefix=True, t_in_epochs=False
        )
    else:
        # timm lowers the rate one step before a milestone.
        milestones = [round(epoch * steps_per_epoch) + 1 for epoch in config.milestones]
        schedule = MultiStepLRScheduler(
            optimizer, milestones, config.gamma, **warmup, warmup_prefix=False, t_in_epochs=False
        )

    def set_rate(step: int) -> float:
        schedule.step_update(step)
        first = optimizer.param_groups[0]
        return first["lr"] / first.get("lr_scale", 1.0)

    return set_rate

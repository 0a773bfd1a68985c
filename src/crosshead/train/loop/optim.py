"""The optimizer and the learning rate of every step."""

from collections.abc import Callable
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info
from timm.scheduler import CosineLRScheduler
from torch import nn

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
        model,
        opt=config.name,
        lr=config.lr * rate_scale(config, total_batch),
        weight_decay=config.weight_decay,
        **options,
    )


def build_schedule(
    optimizer: torch.optim.Optimizer,
    config: ScheduleConfig,
    *,
    total_steps: int,
    steps_per_epoch: int,
    scale: float,
) -> Callable[[int], float]:
    """A function that sets the learning rate of step ``step`` (from 0) in ``optimizer`` and returns it.

    Linear from ``warmup_lr`` to the optimizer's rate over the warm-up, then half a cosine down to ``min_lr`` at
    the last step (timm's ``CosineLRScheduler``); or the same warm-up and then constant.
    """
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    peak = optimizer.param_groups[0]["lr"]
    cosine = CosineLRScheduler(
        optimizer,
        t_initial=max(total_steps - warmup_steps, 1),
        lr_min=config.min_lr * scale if config.name == "cosine" else peak,
        warmup_t=warmup_steps,
        warmup_lr_init=config.warmup_lr * scale,
        warmup_prefix=True,
        t_in_epochs=False,
    )

    def set_rate(step: int) -> float:
        cosine.step_update(step)
        return optimizer.param_groups[0]["lr"]

    return set_rate

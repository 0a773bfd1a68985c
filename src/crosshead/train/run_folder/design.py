"""What says later whether two runs pair: the seed, the order of the data, and what each tensor began as."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crosshead.data.base import Splits
from crosshead.data.batching.order import samples_per_epoch
from crosshead.data.datasets.fingerprint import describe_images
from crosshead.files import read_json
from crosshead.formats import NewerFormat, numbered, read_numbered
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Task
from crosshead.train.files import replace_file

DESIGN_FILE = "design.json"


def tensor_digests(model: nn.Module) -> dict[str, str]:
    """Shape and digest of every parameter, by name."""
    return {name: _digest(tensor.detach()) for name, tensor in model.named_parameters()}


def describe_design(
    recipe: Recipe, splits: Splits, task: Task, context: dict[str, Any], tensors: dict[str, str]
) -> dict[str, Any]:
    """What ``design.json`` holds. Everything random in training is a function of (seed, epoch, index), so that the
    first epoch's order stands for all. ``context``: what the run's checkpoints remember of data and processes."""
    data, processes = recipe.data, context["processes"]
    length, step = len(splits.train), recipe.train.accumulation_steps
    used = samples_per_epoch(length, data.batch_size, processes, step)
    order = task.training_batches(splits.train, seed=recipe.train.seed, epoch=0).order(used)
    sampled = hashlib.sha256(order.tobytes())
    sampled.update(json.dumps([data.batch_size * processes * step, recipe.augment.model_dump()]).encode())
    names, test = splits.info.class_names, splits.test

    return {
        "seed": recipe.train.seed,
        "order": sampled.hexdigest(),
        **context["data"],
        "test": None if test is None else describe_images(test, names, data.root),
        "tensors": tensors,
    }


def write_design(folder: Path, design: dict[str, Any]) -> None:
    replace_file(folder / DESIGN_FILE, (json.dumps(numbered(design), indent=1) + "\n").encode())


def read_design(folder: Path) -> dict[str, Any] | None:
    """None where a run has none, as those of before have not, or none that is whole."""
    file = folder / DESIGN_FILE
    try:
        found = read_numbered(read_json(file), file)
    except NewerFormat:
        raise
    except (OSError, ValueError):
        return None
    return found if _is_whole(found) else None


def _is_whole(design: dict[str, Any]) -> bool:
    tensors, test = design.get("tensors"), design.get("test")
    return (
        all(key in design for key in ("seed", "order", "test"))
        and isinstance(design.get("train"), dict)
        and isinstance(tensors, dict)
        and all(isinstance(each, str) and each.split() for each in tensors.values())
        and (test is None or (isinstance(test, dict) and "names" in test))
    )


def _digest(tensor: torch.Tensor) -> str:
    raw = (
        tensor.cpu().contiguous().view(torch.uint8)
        if tensor.dim()
        else tensor.cpu().view(1).view(torch.uint8)
    )
    return f"{'x'.join(map(str, tensor.shape))} {hashlib.sha256(raw.numpy().tobytes()).hexdigest()[:16]}"

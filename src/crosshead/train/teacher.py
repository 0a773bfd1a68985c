"""The teacher that a recipe names (``train.teacher``), out of files: a run, a saved model, or timm's with weights."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from crosshead import models
from crosshead.data.base import DatasetInfo
from crosshead.data.transforms.pipeline import image_size
from crosshead.models.saved import load_saved
from crosshead.recipe.compose import load_recipe
from crosshead.recipe.schema import ModelConfig, Recipe
from crosshead.tasks import Task, open_task
from crosshead.train.checkpoint.state import load_weights
from crosshead.train.inference import find_weights
from crosshead.train.loop.teaching import Teacher
from crosshead.train.run_folder.folder import RECIPE_FILE, read_info

_Statistics = tuple[Sequence[float], Sequence[float]]


def load_teacher(recipe: Recipe, task: Task, info: DatasetInfo, device: torch.device) -> Teacher | None:
    """The teacher of ``recipe``, on ``device``; None where it names none. No random number is drawn for it.

    Raises:
        ValueError: it isn't there, tells other classes apart, or doesn't take such pictures; or the task has none.
    """
    wanted = recipe.train.teacher
    if wanted is None:
        return None
    if task.answers != "classes":
        raise ValueError(
            f"train.teacher is for tasks that say one class of a picture, and task.name is {recipe.task.name}; "
            "leave it out"
        )
    with torch.random.fork_rng(devices=[]):
        if wanted.run is not None:
            model, file, statistics = _of_run(Path(wanted.run), info)
        else:
            assert wanted.weights is not None
            model, file, statistics = _of_weights(recipe, wanted.model, Path(wanted.weights), info)
    model = model.to(device).eval().requires_grad_(False)
    name = str(wanted.run or wanted.weights)
    _try(model, recipe, info, device, name)
    with open(file, "rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    factor, shift = _renormalising(statistics, info, device)
    return Teacher(model, wanted.temperature, wanted.weight, name, digest, factor, shift)


def told_teacher(teacher: Teacher) -> str:
    """For the run's log."""
    return (
        f"taught by {teacher.name} (sha256 {teacher.digest[:16]}), at temperature {teacher.temperature:g} and weight "
        f"{teacher.weight:g}"
    )


def _of_run(folder: Path, info: DatasetInfo) -> tuple[nn.Module, Path, _Statistics]:
    if not (folder / RECIPE_FILE).is_file():
        raise ValueError(
            f"train.teacher.run={folder}: no run is there; expected its folder, with {RECIPE_FILE}"
        )
    recorded, its = load_recipe(folder / RECIPE_FILE), read_info(folder)
    task = open_task(recorded, its)
    if task.answers != "classes":
        raise ValueError(
            f"train.teacher.run={folder} is of task.name={recorded.task.name}: expected classify"
        )
    if its.class_names != info.class_names:
        raise ValueError(
            f"train.teacher.run={folder} tells {len(its.class_names)} classes apart ({_some(its.class_names)}), and "
            f"the data has {len(info.class_names)} ({_some(info.class_names)}): expected the same, in the same order"
        )
    if its.channels != info.channels:
        raise ValueError(
            f"train.teacher.run={folder} sees {its.channels} channels, and data.channels is {info.channels}"
        )
    model, file = task.build_model(from_weights=False), find_weights(folder)
    load_weights(model, safetensors.torch.load_file(file), str(file))
    return model, file, (recorded.data.mean or its.mean, recorded.data.std or its.std)


def _of_weights(
    recipe: Recipe, name: str | None, path: Path, info: DatasetInfo
) -> tuple[nn.Module, Path, _Statistics]:
    if not path.exists():
        raise ValueError(f"train.teacher.weights={path}: no such file or folder")
    file = models.weights_file(path)
    if name is None:
        model = load_saved(file.parent)
        config: Any = getattr(model, "pretrained_cfg", {})
        if (classes := getattr(model, "num_classes", None)) != len(info.class_names):
            raise ValueError(
                f"train.teacher.weights={path} tells {classes} classes apart, and the data has {len(info.class_names)}"
            )
    else:
        settings = ModelConfig(name=name)
        model = models.build_model(
            settings,
            num_classes=len(info.class_names),
            in_chans=info.channels,
            img_size=image_size(recipe.data),
            from_weights=False,
        )
        models.load_weights(model, file, new_classifier=False)
        config = models.pretrained_config(name, file)
    own = [config.get(key) for key in ("mean", "std")]
    mean, std = (
        list(given) if given is not None and len(given) == info.channels else list(data)
        for given, data in zip(own, (info.mean, info.std), strict=True)
    )
    return model, file, (mean, std)


def _try(model: nn.Module, recipe: Recipe, info: DatasetInfo, device: torch.device, name: str) -> None:
    height, width = image_size(recipe.data)
    try:
        with torch.no_grad():
            said = model(torch.zeros(1, info.channels, height, width, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"train.teacher ({name}) does not take pictures of {height} x {width} pixels: {error}; set data.image_size "
            "to its own"
        ) from error
    if said.shape != (1, len(info.class_names)):
        raise ValueError(
            f"train.teacher ({name}) says {tuple(said.shape[1:])} numbers of a picture, and the data has "
            f"{len(info.class_names)} classes"
        )


def _renormalising(
    theirs: _Statistics, info: DatasetInfo, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(x · std + mean - their mean) / their std, as x · factor + shift."""
    if all(list(a) == list(b) for a, b in zip(theirs, (info.mean, info.std), strict=True)):
        return None, None
    mean, std, their_mean, their_std = (
        torch.tensor(list(each), dtype=torch.float64).view(1, -1, 1, 1)
        for each in (info.mean, info.std, *theirs)
    )
    return (std / their_std).float().to(device), ((mean - their_mean) / their_std).float().to(device)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")

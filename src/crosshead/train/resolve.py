"""What a recipe leaves to its first weights and to the place where it is started, resolved before a run begins.

What is found is recorded with the run, so that resuming, evaluating and predicting ask neither weights nor a network.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosshead.data.base import DatasetInfo
from crosshead.models import pretrained_config, weights_file
from crosshead.recipe.compose import load_recipe
from crosshead.recipe.schema import Recipe
from crosshead.tasks import TASKS
from crosshead.train.inference import find_weights
from crosshead.train.run_folder.folder import RECIPE_FILE, read_info

_MODEL = ("name", "args", "overlap", "interaction")  # what weights are of
_INTERPOLATIONS = ("bicubic", "bilinear", "nearest")


def resolve(recipe: Recipe, own: Path | None = None) -> Recipe:
    """The recipe with absolute paths, and with what it doesn't say taken from its first weights.

    Of a run (``model.init_from`` names its folder) that is its model and how it saw pictures; of timm's weights
    (``pretrained``, a folder with ``config.json``, or a file for one of timm's models) their mean, standard deviation,
    interpolation, crop and, where ``data.image_size`` is null, image size. What the recipe says itself stays, except
    that weights of a run decide which model a classifier is.

    Args:
        recipe: a run's.
        own: the folder of the run that is gone on with, which has all that on record: its first weights may be gone.
    """
    root, first = _absolute(recipe.data.root), _absolute(recipe.model.init_from)
    run = None if first is None else _run_of(Path(first))
    found: dict[str, Any] = {}
    model: dict[str, Any] = {}
    if first is not None and (recorded := _recorded(own)) is not None:
        found, model = _of_run(recipe, recorded), _model_of(recipe, recorded)
        first = recorded.model.init_from or first
    elif run is not None:
        recorded = load_recipe(run / RECIPE_FILE)
        found, model = _of_run(recipe, recorded, read_info(run)), _model_of(recipe, recorded)
        first = str(find_weights(run)) if first == str(run) else first
    elif first is not None or recipe.model.args.get("pretrained"):
        found = _of_timm(recipe, first)
    share = found.pop("crop_pct", None)
    if TASKS.find(recipe.task.name, "task.name").whole_pictures:  # a cut's size says nothing of whole scenes
        share = None
        found = {key: value for key, value in found.items() if key not in ("image_size", "eval_resize")}
    data = {"root": root} | found
    train: dict[str, Any] = {}
    if (teacher := recipe.train.teacher) is not None:
        places = {"run": _absolute(teacher.run), "weights": _absolute(teacher.weights)}
        train["teacher"] = teacher.model_copy(update=places)
    if share is not None and _is_open(recipe, "eval_resize"):
        data |= _crop(data.get("image_size", recipe.data.image_size), share)
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=data),
            "model": recipe.model.model_copy(update=model | {"init_from": first}),
            "train": recipe.train.model_copy(update=train),
        }
    )


def with_resolved_data(recipe: Recipe, found: Mapping[str, Any]) -> Recipe:
    """The recipe with what a look at its pictures decided of ``data``, to be recorded with the run."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=dict(found))}) if found else recipe


def as_recorded(recipe: Recipe, state: Mapping[str, Any]) -> Recipe:
    """The recipe of a run that goes on from ``state``: what its pictures decided when it began, today's don't decide
    again."""
    if not state:
        return recipe
    before = state["recipe"]["data"]
    open_ = ["white_level"] if recipe.data.white_level == "auto" else []
    if recipe.data.channels not in (1, 3):
        open_ += [key for key in ("mean", "std") if getattr(recipe.data, key) is None]
    return with_resolved_data(recipe, {key: before[key] for key in open_ if before.get(key) is not None})


def taken_from_run(given: Recipe, resolved: Recipe) -> str:
    """What ``resolve`` took from the run whose weights come first, in words; empty where that is nothing."""
    if given.model.init_from is None or (run := _run_of(Path(given.model.init_from))) is None:
        return ""
    sections = (
        ("model", _MODEL),
        ("data", ("image_size", "channels", "white_level", "mean", "std", "interpolation")),
    )
    taken = [
        f"{section}.{key}={getattr(getattr(resolved, section), key)}"
        for section, keys in sections
        for key in keys
        if getattr(getattr(resolved, section), key) != getattr(getattr(given, section), key)
    ]
    return f"taken from the run {run}, whose weights come first: {', '.join(taken)}" if taken else ""


def refuse_other_model(recipe: Recipe) -> None:
    """ValueError where the first weights are a run's of another model than the recipe's, which was asked for."""
    run = None if recipe.model.init_from is None else _run_of(Path(recipe.model.init_from))
    recorded = _recorded(run)
    if recorded is not None and not _is_dense(recipe) and _plain(recipe) != _plain(recorded):
        raise ValueError(
            f"model.name is {recipe.model.name}, and {run} is a run of {recorded.model.name}, whose weights fit no "
            "other model: leave model.name out, or model.init_from"
        )


def starts_from_weights(recipe: Recipe) -> bool:
    return bool(recipe.model.init_from or recipe.model.args.get("pretrained"))


def check_presumed_weights(recipe: Recipe) -> None:
    """ValueError where a recipe says what is only meant for a model that knows something, and none is named."""
    first = recipe.model.init_from
    if first is not None and not os.path.exists(os.path.expanduser(first)):
        raise ValueError(
            f"model.init_from={first}: no such file or folder; expected weights, a folder of timm's or a run"
        )
    presume = {
        "optimizer.layer_decay": recipe.optimizer.layer_decay,
        "optimizer.head_lr": recipe.optimizer.head_lr,
    }
    said = [key for key, value in presume.items() if value]
    if said and not starts_from_weights(recipe):
        raise ValueError(
            f"{' and '.join(said)} presume weights to start from, and the recipe names none: set model.init_from to a "
            "file, a folder of timm's or a run, or model.args.pretrained=true to have timm fetch them"
        )


def _is_open(recipe: Recipe, key: str) -> bool:
    """Whether the recipe leaves ``data.key`` open. One that says a mean prepares its pictures itself, as a recorded one
    does."""
    if recipe.data.mean is not None and key != "image_size":
        return False
    return getattr(recipe.data, key) is None or (
        key == "interpolation" and key not in recipe.data.model_fields_set
    )


def _run_of(first: Path) -> Path | None:
    """The run's folder that ``first`` is, or that it is a checkpoint or a checkpoint's file of."""
    return next((each for each in (first, *first.parents[:3]) if (each / RECIPE_FILE).is_file()), None)


def _recorded(folder: Path | None) -> Recipe | None:
    """The recipe of the run in ``folder``, where it can be read."""
    try:
        return None if folder is None else load_recipe(folder / RECIPE_FILE)
    except (OSError, ValueError):
        return None


def _of_run(recipe: Recipe, recorded: Recipe, info: DatasetInfo | None = None) -> dict[str, Any]:
    """What the recipe leaves open of ``data``; its statistics are those of ``info``, where that is given."""
    data = recorded.data
    found: dict[str, Any] = {
        "mean": data.mean if info is None else list(info.mean),
        "std": data.std if info is None else list(info.std),
        "interpolation": data.interpolation,
        "image_size": data.image_size,
        "eval_resize": data.eval_resize,
    }
    found = {key: value for key, value in found.items() if _is_open(recipe, key)}
    unsaid = {"image_size", "channels", "white_level"} - recipe.data.model_fields_set
    if recipe.data.mean is not None:
        unsaid -= {"channels"}
    return found | {key: getattr(data, key) for key in unsaid}


def _model_of(recipe: Recipe, recorded: Recipe) -> dict[str, Any]:
    """What a classifier's ``model`` is by its first weights: all of it where the recipe names another one; what it
    leaves open where it names the same. Heads that interact stay so, and those that don't may be made to."""
    if _is_dense(recipe):
        return {}
    theirs = {key: getattr(recorded.model, key) for key in _MODEL}
    theirs["args"] = {key: value for key, value in theirs["args"].items() if key != "pretrained"}
    if _plain(recipe) != _plain(recorded):
        return theirs
    said = recipe.model.model_fields_set - ({"interaction"} if theirs["interaction"] is not None else set())
    return {key: value for key, value in theirs.items() if key not in said}


def _is_dense(recipe: Recipe) -> bool:
    return recipe.model.segmenter is not None or recipe.model.detector is not None


def _plain(recipe: Recipe) -> str:
    """The model's name without that of timm's weights."""
    return recipe.model.name.partition(".")[0]


def _of_timm(recipe: Recipe, first: str | None) -> dict[str, Any]:
    """Of a file beside which no configuration lies, and a model of this library, nothing is known."""
    name = recipe.model.name
    path = None if first is None or not os.path.exists(first) else weights_file(first)
    beside = path is not None and (path.parent / "config.json").is_file()
    if not beside and name.startswith(("mohsa_", "plain_", "ivit_")):
        return {}
    config = pretrained_config(name, path)
    found: dict[str, Any] = {
        key: _channels(config[key], recipe.data.channels) for key in ("mean", "std") if key in config
    }
    if config.get("interpolation") in _INTERPOLATIONS:
        found["interpolation"] = config["interpolation"]
    if config.get("input_size"):
        height, width = config["input_size"][1:]
        found["image_size"] = height if height == width else (height, width)
    if config.get("crop_pct"):
        found["crop_pct"] = config["crop_pct"]
    return {key: value for key, value in found.items() if key == "crop_pct" or _is_open(recipe, key)}


def _crop(size: Any, share: float) -> dict[str, int]:
    """timm's share of the shorter side that evaluation keeps, as the size to resize to."""
    if size is None:
        return {}
    side = size if isinstance(size, int) else max(size)
    return {"eval_resize": max(side, int(side / share))}


def _channels(values: Any, channels: int) -> list[float]:
    own = [float(value) for value in values]
    return own if len(own) == channels else [sum(own) / len(own)] * channels


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(os.path.expanduser(path))

"""Arguments that several commands share and what they turn into; and the keys of a run's recipe that ``predict`` and
``eval`` may change: how it is used, not what it has learned."""

import argparse
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crosshead.recipe import Recipe
    from crosshead.tasks import Task

Commands = Any  # argparse's sub-parsers action, whose class has no public name


def add_recipe_words(parser: argparse.ArgumentParser) -> None:
    """``RECIPE`` and ``KEY=VALUE ...``, in one list: they may stand anywhere between the options."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RECIPE [KEY=VALUE ...]",
        help="a shipped recipe's name or a .yaml file, and keys to change: train.epochs=10 model.overlap=index",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", metavar="D", help="cpu, cuda, cuda:1 or mps (default: the best one there is)"
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        metavar="C",
        help="best, last, or a step number (default: the one that RUN names, or best)",
    )


def split_words(words: list[str]) -> tuple[str | None, list[str]]:
    """The recipe, if one is named, and the overrides."""
    overrides = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise ValueError(
            f"expected one recipe and KEY=VALUE pairs, got {' and '.join(names)}; write KEY=VALUE without blanks"
        )
    return (names[0] if names else None), overrides


def find_run(path: str | Path) -> Path:
    """The run's folder that ``path`` is or lies in; ValueError where there is none."""
    path = Path(path)
    for folder in (path, *path.parents):
        if (folder / "recipe.yaml").is_file():
            return folder
    what = "holds no recipe.yaml" if path.exists() else "is not there"
    raise ValueError(f"{path} {what}; expected the folder of a run, such as runs/digits_mohsa")


def find_checkpoint(path: str | Path) -> tuple[Path, str]:
    """The run's folder that ``path`` is or lies in, and its checkpoint: the step that ``path`` names, or "best"."""
    run = find_run(path)
    for part in Path(path).parts[len(run.parts) :]:
        if step := re.fullmatch(r"step-([0-9]{1,15})", part):
            return run, str(int(step[1]))
    return run, "best"


KEYS = (
    *("task.score_threshold", "task.classes", "task.max_detections", "task.window", "task.window_scale"),
    *("task.temperature", "task.threshold", "task.tta", "task.suppression"),
    *("data.root", "data.batch_size", "data.eval_batch_size", "data.num_workers", "data.eval_resize"),
    *("data.longest", "data.interpolation", "data.on_broken_train", "data.on_broken_eval", "data.max_broken"),
    *("data.max_megapixels", "data.follow_links", "data.white_level", "data.value_range", "data.exif"),
    *("train.device", "train.precision"),
)  # fmt: skip
BY_CLASS = "task.score_threshold."  # and a class's name
_OF_TASKS = {
    "task.temperature": "classify",
    "task.threshold": "classify",
    "task.score_threshold": "detect",
    "task.classes": "detect",
    "task.suppression": "detect",
    "task.tta": "classify and segment and detect",
    "task.max_detections": "detect",
    "task.window": "segment and detect",
    "task.window_scale": "segment and detect",
}
_KEY = re.compile(rf"([a-z_]+(\.[a-z_0-9]+)+|{re.escape(BY_CLASS)}[^=]+)=.*", re.DOTALL)


def split_keys(words: list[str]) -> tuple[list[str], list[str]]:
    """The words that are no ``KEY=VALUE``, and those that are; what is there as a file is none."""
    keys = [word for word in words if _KEY.fullmatch(word) and not Path(word).exists()]
    return [word for word in words if word not in keys], keys


def used_with(run: Path, overrides: list[str], chosen: Mapping[str, Any] | None = None) -> "Recipe | None":
    """The run's recipe with what was ``chosen`` for it, by key, and with ``overrides``; None where there are neither.

    Raises:
        ValueError: a key on which hangs what the run has learned, or by what it was trained and chosen.
    """
    said = {override.partition("=")[0] for override in overrides}
    values = {key: value for key, value in (chosen or {}).items() if key not in said}
    if not overrides and not values:
        return None
    from crosshead.recipe import load_recipe
    from crosshead.recipe.check import check_key
    from crosshead.tasks import TASKS

    for override in overrides:
        key = override.partition("=")[0]
        check_key(key, f"command line, {override}")
        if key not in KEYS and not key.startswith(BY_CLASS):
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.8)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"{key} is a part of what this run has learned, or of how it was trained, and stays as it is{hint} "
                f"Keys that can be changed here: {', '.join(KEYS)}"
            )
    recipe = load_recipe(run / "recipe.yaml", overrides, values)
    task = TASKS.find(recipe.task.name, "task.name")
    for key, tasks in _OF_TASKS.items():
        served = _served(key, task)
        if not served and any(re.match(rf"{key}[.=]", each) for each in overrides):
            whole = " sees each picture whole;" if "window" in key else ":"
            raise ValueError(
                f"{key} is for task.name={tasks}, and this run of task.name={recipe.task.name}{whole} "
                "leave it out"
            )
    return recipe


def _served(key: str, task: "type[Task]") -> bool:
    """Whether ``task`` knows what to do with ``key``."""
    wanted = {
        "classify": task.answers == "classes",
        "segment": task.targets == "map",
        "detect": task.targets == "objects",
    }
    return (
        task.takes_windows if "window" in key else any(wanted[each] for each in _OF_TASKS[key].split(" and "))
    )

"""Keys of a run's recipe that ``predict`` and ``eval`` may change: how it is used, not what it has learned."""

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crosshead.recipe import Recipe

KEYS = (
    *("task.score_threshold", "task.max_detections", "task.window", "task.window_scale"),
    *("data.root", "data.batch_size", "data.eval_batch_size", "data.num_workers", "data.eval_resize"),
    *("data.longest", "data.interpolation", "data.on_broken_train", "data.on_broken_eval", "data.max_broken"),
    *("data.max_megapixels", "data.follow_links", "data.white_level", "data.value_range", "data.exif"),
    *("train.device", "train.precision"),
)  # fmt: skip
_OF_TASKS = {
    "task.score_threshold": "detect",
    "task.max_detections": "detect",
    "task.window": "segment and detect",
    "task.window_scale": "segment and detect",
}
_KEY = re.compile(r"[a-z_]+(\.[a-z_0-9]+)+=.*", re.DOTALL)


def split_keys(words: list[str]) -> tuple[list[str], list[str]]:
    """The words that are no ``KEY=VALUE``, and those that are; what is there as a file is none."""
    keys = [word for word in words if _KEY.fullmatch(word) and not Path(word).exists()]
    return [word for word in words if word not in keys], keys


def used_with(run: Path, overrides: list[str]) -> "Recipe | None":
    """The run's recipe with ``overrides``; None where there are none.

    Raises:
        ValueError: a key on which hangs what the run has learned, or by what it was trained and chosen.
    """
    if not overrides:
        return None
    from crosshead.recipe import load_recipe
    from crosshead.recipe.check import check_key
    from crosshead.tasks import TASKS

    for override in overrides:
        key = override.partition("=")[0]
        check_key(key, f"command line, {override}")
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.8)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"{key} is a part of what this run has learned, or of how it was trained, and stays as it is{hint} "
                f"Keys that can be changed here: {', '.join(KEYS)}"
            )
    recipe = load_recipe(run / "recipe.yaml", overrides)
    task = TASKS.find(recipe.task.name, "task.name")
    for key, tasks in _OF_TASKS.items():
        served = task.takes_windows if "window" in key else task.targets == "objects"
        if not served and any(each.startswith(f"{key}=") for each in overrides):
            whole = " sees each picture whole;" if "window" in key else ":"
            raise ValueError(
                f"{key} is for task.name={tasks}, and this run of task.name={recipe.task.name}{whole} "
                "leave it out"
            )
    return recipe

"""Finished runs, read from their folders and put together by recipe."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from crosshead.recipe import Recipe, RecipeError, load_recipe
from crosshead.train.events import RESULT_FILE, Result
from crosshead.train.run_folder.design import read_design
from crosshead.train.run_folder.folder import RECIPE_FILE, VERSIONS_FILE

# What a recipe says of where a run lies and how it is told, and what seeds and folds change.
_NOT_COMPARED = (
    "name",
    "output",
    "notes",
    "log",
    "checkpoint",
    "train.seed",
    "data.fold",
    "train.device",
    "data.num_workers",
)


@dataclass(frozen=True)
class FinishedRun:
    """One run. ``settings`` is its recipe, flat, less what makes no difference to what is learned."""

    folder: Path
    recipe: Recipe
    result: Result
    design: dict[str, Any] | None
    versions: dict[str, str]
    settings: Mapping[str, Any]

    @property
    def seed(self) -> int:
        return self.recipe.train.seed

    @property
    def folds(self) -> int | None:
        """Into how many parts its data were dealt, one of which it was tested on."""
        return self.recipe.data.folds

    @property
    def number(self) -> int:
        """What tells it from the other runs of its recipe: its fold where there are some, else its seed."""
        return self.seed if self.folds is None else self.recipe.data.fold


@dataclass(frozen=True)
class Group:
    """Runs of one recipe, by seed or fold; ``label`` tells it from the others."""

    label: str
    runs: tuple[FinishedRun, ...]

    @property
    def seeds(self) -> list[int]:
        """Their seeds; of runs on folds these."""
        return [run.number for run in self.runs]

    @property
    def folds(self) -> int | None:
        return self.runs[0].folds

    @property
    def ratio(self) -> float:
        """Of runs on folds: how many pictures each is tested on for one that it learns from."""
        assert self.folds is not None
        known = [run.design for run in self.runs if run.design is not None and "count" in run.design["train"]]
        if len(known) == len(self.runs):
            return sum(each["test"]["count"] for each in known) / sum(
                each["train"]["count"] for each in known
            )
        return 1 / ((self.folds - 1) * (1 - self.runs[0].recipe.data.validation))


def read_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """The runs in ``folders``: each a run's folder, or a sweep's, all of whose runs must be finished.

    Raises:
        ValueError: a folder that holds no finished run.
    """
    found: dict[Path, FinishedRun] = {}
    for folder in folders:
        for each in _expand(folder):
            found.setdefault(each.resolve(), _read(each))
    return [*found.values()]


def finished_alike(folder: Path) -> list[FinishedRun]:
    """The run of ``folder`` first, then those beside it that differ from it in their seed alone, by seed; none where it
    is not finished itself."""
    if not (folder / RESULT_FILE).is_file():
        return []
    own = _read(folder)
    others: dict[int, FinishedRun] = {}
    for file in sorted(folder.resolve().parent.glob(f"*/{RECIPE_FILE}")):
        try:
            other = _read(file.parent)
        except ValueError:  # not finished, or of another version: its seed is not counted
            continue
        if other.settings == own.settings and other.seed != own.seed:
            others.setdefault(other.seed, other)
    return [own, *(others[seed] for seed in sorted(others))]


def _expand(folder: Path) -> Iterator[Path]:
    if (folder / RECIPE_FILE).is_file():
        yield folder
        return
    below = sorted(path.parent for path in folder.rglob(RECIPE_FILE))
    if not below:
        what = "holds no run" if folder.is_dir() else "is not there"
        raise ValueError(f"{folder} {what}; expected the folder of a run or of a sweep, such as runs/digits")
    yield from below


def _read(folder: Path) -> FinishedRun:
    try:
        recipe = load_recipe(folder / RECIPE_FILE)
        result = Result.load(folder)
    except FileNotFoundError:
        raise ValueError(
            f"{folder} is not finished ({RESULT_FILE} is missing); resume it, or leave it out"
        ) from None
    except RecipeError as error:
        raise ValueError(f"{folder}: its recipe can't be read: {error}") from error
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / RESULT_FILE} can't be read ({error}); leave the run out") from error
    try:
        versions = json.loads((folder / VERSIONS_FILE).read_text())
    except (OSError, ValueError):
        versions = None
    settings = _flat(recipe.model_dump(mode="json"))
    kept = {key: value for key, value in settings.items() if not _is_left_out(key)}
    known = versions if isinstance(versions, dict) else {}
    return FinishedRun(folder, recipe, result, read_design(folder), known, kept)


def _is_left_out(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in _NOT_COMPARED)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def group_runs(runs: Sequence[FinishedRun]) -> list[Group]:
    """The runs by recipe, in the order in which they came; each group's by seed or fold.

    Raises:
        ValueError: a seed or a fold that comes twice in one recipe, a fold that is missing, or runs that can't be
            compared.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
    ordered = [sorted(each, key=lambda run: run.number) for each in groups.values()]
    for each in ordered:
        for one, other in pairwise(each):
            if one.number == other.number:
                what = "seed" if one.folds is None else "fold"
                raise ValueError(
                    f"{one.folder} and {other.folder} are one recipe with one {what} ({one.number}): the second says "
                    "nothing more; leave one of them out"
                )
    _check_folds(ordered)
    _check_alike([run for each in ordered for run in each])
    labels = _labels(ordered)
    return [Group(label, tuple(each)) for label, each in zip(labels, ordered, strict=True)]


def differing_settings(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Keys of the recipes that are not the same in all groups, with each group's value; ``"-"`` where it has none."""
    settings = [group.runs[0].settings for group in groups]
    keys = dict.fromkeys(key for each in settings for key in each)
    values = {key: [each.get(key, "-") for each in settings] for key in keys}
    return {key: each for key, each in values.items() if any(value != each[0] for value in each)}


def _labels(groups: Sequence[Sequence[FinishedRun]]) -> list[str]:
    """The names of the recipes; where those agree, with their number."""
    names = [each[0].recipe.name for each in groups]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _check_folds(groups: Sequence[Sequence[FinishedRun]]) -> None:
    """Raises ValueError for runs on folds beside others, of folds that are missing, or with several seeds."""
    folds = {run.folds for each in groups for run in each}
    if folds == {None}:
        return
    first = groups[0][0]
    for run in (run for each in groups for run in each):
        if (run.folds, run.seed, run.recipe.split_seed) != (first.folds, first.seed, first.recipe.split_seed):
            raise ValueError(
                f"{first.folder} and {run.folder} are not of one cross-validation (data.folds, train.seed and "
                "data.split_seed); only runs on the same folds, with one seed, can be compared"
            )
    for each in groups:
        if missing := sorted(set(range(first.folds or 0)) - {run.number for run in each}):
            raise ValueError(
                f"{each[0].folder}: of its recipe fold {missing[0]} of {first.folds} is missing; train it (crosshead "
                f"sweep RECIPE --folds {first.folds})"
            )


def _check_alike(runs: Sequence[FinishedRun]) -> None:
    """Raises ValueError for runs of other tasks, other data or other test images than the first one's, or the first
    one's on that fold."""
    by_fold = {run.number if run.folds else 0: run for run in reversed(runs)}
    for run in runs:
        first = by_fold[run.number if run.folds else 0]
        for what, one, other in (
            ("tasks", first.recipe.task.name, run.recipe.task.name),
            ("data sets", first.recipe.data.name, run.recipe.data.name),
            ("numbers of test images", first.result.test.get("count"), run.result.test.get("count")),
            ("test images", _test_images(first), _test_images(run)),
        ):
            if one != other and None not in (one, other):
                shown = "" if isinstance(one, tuple) else f" ({one} and {other})"
                raise ValueError(
                    f"{first.folder} and {run.folder} have other {what}{shown}; only runs of one task that were tested "
                    "on the same images can be compared"
                )


def _test_images(run: FinishedRun) -> tuple[str, ...] | None:
    test = None if run.design is None else run.design.get("test")
    return None if test is None else (test["names"], str(test.get("objects")))

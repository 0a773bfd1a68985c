"""One recipe over lists of values and seeds: planned, trained in order, taken up again where it stopped."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from crosshead.recipe import Recipe, RecipeError, load_recipe
from crosshead.train.keeping.folder import RECIPE_FILE, settled_paths
from crosshead.train.run import train
from crosshead.train.telling.records import Observer
from crosshead.train.telling.result import RESULT_FILE, Result

# Keys that say where a run lies and how it is told, not what it computes.
_NOT_COMPARED = {"name", "output", "notes", "log"}
_PLAIN_WORDS = {"model.overlap", "model.name"}


@dataclass(frozen=True)
class Variant:
    """One row of the table to be: a recipe, and a run folder for each seed."""

    label: str
    recipe: Recipe
    folders: dict[int, Path]

    def seeded(self, seed: int) -> Recipe:
        return self.recipe.model_copy(update={"train": self.recipe.train.model_copy(update={"seed": seed})})


@dataclass(frozen=True)
class Row:
    """What a variant's finished runs came to. Accuracies are shares; ``std`` is None for a single seed."""

    label: str
    seeds: list[int]
    parameters: int
    gmacs: float
    images_per_second: float
    validation_mean: float
    validation_std: float | None
    test_mean: float | None
    test_std: float | None


def plan_sweep(
    recipes: Sequence[str | Path],
    overrides: Sequence[str],
    over: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    folder: Path,
) -> list[Variant]:
    """Every combination of a recipe and a value from each list of ``over``, each to be run with every seed.

    Args:
        recipes: names or files.
        overrides: ``KEY=VALUE``, the same for all.
        over: values by dotted key, as they are written on the command line.
        seeds: of the runs; the data's split and the weights follow them.
        folder: of the sweep. A run goes to ``folder/LABEL/seed-N``.

    Raises:
        RecipeError: a recipe can't be used, or two variants would be the same one.
    """
    variants: dict[str, Variant] = {}
    for recipe, *values in itertools.product(recipes, *over.values()):
        assigned = dict(zip(over, map(str, values), strict=True))
        label = _label(recipe if len(recipes) > 1 or not assigned else None, assigned)
        if label in variants:
            raise RecipeError(f"the sweep names {label!r} twice; every combination is to be another one")
        place = folder / re.sub(r"[^A-Za-z0-9_.+=-]+", "_", label)
        runs = {seed: place / f"seed-{seed}" for seed in seeds}
        if any(runs.items() & variant.folders.items() for variant in variants.values()):
            raise RecipeError(
                f"{label!r} would share its folder {place} with another variant; rename the recipe"
            )
        settings = [*overrides, *(f"{key}={value}" for key, value in assigned.items())]
        settled = settled_paths(load_recipe(recipe, settings, {"name": label, "output": str(folder)}))
        variants[label] = Variant(label, settled, runs)
    return list(variants.values())


def _label(recipe: str | Path | None, assigned: Mapping[str, str]) -> str:
    """The words that tell a variant from the others; schedules and models speak for themselves."""
    words = [] if recipe is None else [Path(recipe).stem]
    for key, value in assigned.items():
        words.append(value if key in _PLAIN_WORDS else f"{key.rpartition('.')[2]}={value}")
    return " ".join(words)


def run_sweep(
    variants: Sequence[Variant],
    watch: Callable[[Recipe], Observer],
    announce: Callable[[str], None],
) -> Iterator[Result]:
    """Trains what is not finished yet, seed by seed; what is finished is read. Ends early if a run is stopped.

    Raises:
        ValueError: a folder holds a run of another recipe, or a run can't be started.
    """
    runs = [(variant, seed) for seed in variants[0].folders for variant in variants]
    for number, (variant, seed) in enumerate(runs, start=1):
        folder, recipe = variant.folders[seed], variant.seeded(seed)
        _check_same_recipe(folder, recipe)
        announce(f"[{number}/{len(runs)}] {variant.label}, seed {seed}")
        if (folder / RESULT_FILE).exists():
            result = Result.load(folder)
        else:
            result = train(recipe, folder=folder, resume=folder.exists(), observer=watch(recipe))
        yield result
        if result.status != "finished":
            return


def _check_same_recipe(folder: Path, recipe: Recipe) -> None:
    if not (folder / RECIPE_FILE).exists():
        return
    before, now = load_recipe(folder / RECIPE_FILE).model_dump(), recipe.model_dump()
    changed = sorted(key for key in now if key not in _NOT_COMPARED and before[key] != now[key])
    if changed:
        raise ValueError(
            f"{folder} holds a run of another recipe (it differs in {', '.join(changed)}); "
            "sweep into another folder, or remove this one"
        )


def tabulate(variants: Sequence[Variant]) -> list[Row]:
    """A row for every variant that has a finished run, over the seeds that are finished."""
    rows = []
    for variant in variants:
        results = {
            seed: Result.load(folder)
            for seed, folder in variant.folders.items()
            if (folder / RESULT_FILE).exists()
        }
        if results:
            rows.append(_row(variant.label, results))
    return rows


def _row(label: str, results: dict[int, Result]) -> Row:
    runs = list(results.values())
    validation = [run.validation["accuracy"] for run in runs]
    test = [run.test["accuracy"] for run in runs if run.test]
    return Row(
        label=label,
        seeds=list(results),
        parameters=runs[0].parameters,
        gmacs=runs[0].gmacs,
        images_per_second=fmean(run.images_per_second for run in runs),
        validation_mean=fmean(validation),
        validation_std=_std(validation),
        test_mean=fmean(test) if test else None,
        test_std=_std(test),
    )


def _std(values: list[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def as_cells(row: Row) -> dict[str, Any]:
    """The row as people read it."""
    return {
        "variant": row.label,
        "seeds": len(row.seeds),
        "parameters": f"{row.parameters:,}",
        "GMACs": f"{row.gmacs:.4g}",
        "images/s": f"{row.images_per_second:,.0f}",
        "validation, %": _percent(row.validation_mean, row.validation_std),
        "test, %": _percent(row.test_mean, row.test_std),
    }


def _percent(mean: float | None, std: float | None) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")

"""One recipe over lists of values and seeds: planned, trained in order, taken up again where it stopped."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from crosshead.files import read_json
from crosshead.formats import NewerFormat
from crosshead.recipe import Recipe, RecipeError, load_recipe
from crosshead.tasks.metrics import metric_named
from crosshead.train.distributed import groups as distributed
from crosshead.train.events import RESULT_FILE, BadNumbers, Callback, Result
from crosshead.train.files import replace_file
from crosshead.train.resolve import resolve
from crosshead.train.run import train
from crosshead.train.run_folder.folder import RECIPE_FILE
from crosshead.train.tools.side_by_side import side_by_side

FAILURE_FILE = "failed.json"
# Keys that say where a run lies and how it is told, not what it computes.
_NOT_COMPARED = {"name", "output", "notes", "log"}
_PLAIN_WORDS = {"model.overlap", "model.name"}


@dataclass(frozen=True)
class Variant:
    """One row of the table to be: a recipe, and a run folder for each seed; or for each fold of ``data.folds``, where
    these are swept over (``over`` is "fold")."""

    label: str
    recipe: Recipe
    folders: dict[int, Path]
    over: Literal["seed", "fold"] = "seed"

    def numbered(self, number: int) -> Recipe:
        """The recipe of one of its seeds or folds."""
        section, key = ("train", "seed") if self.over == "seed" else ("data", "fold")
        changed = getattr(self.recipe, section).model_copy(update={key: number})
        return self.recipe.model_copy(update={section: changed})


@dataclass(frozen=True)
class Failure:
    """A run that came to no result. One whose numbers went wrong is not tried again while its folder is there; any
    other is, at the next call (``again``)."""

    folder: Path
    reason: str
    again: bool = False
    status: Literal["failed"] = "failed"


@dataclass(frozen=True)
class Row:
    """What a variant's runs came to: ``seeds`` (or folds, by what was swept ``over``) finished, ``failed`` did not.

    ``metric`` is the one that the figures are of, the first that the task shows; accuracies are shares. ``std`` is None
    for a single seed, and all figures are where no run has finished, or one is undefined.
    """

    label: str
    seeds: list[int]
    failed: list[int]
    parameters: int | None
    gmacs: float | None
    images_per_second: float | None
    metric: str
    validation_mean: float | None
    validation_std: float | None
    test_mean: float | None
    test_std: float | None
    over: str = "seed"


def plan_sweep(
    recipes: Sequence[str | Path],
    overrides: Sequence[str],
    over: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    folder: Path,
    folds: int | None = None,
) -> list[Variant]:
    """Every combination of a recipe and a value from each list of ``over``, each to be run with every seed; or with one
    seed, and each of ``folds`` parts of its training pictures as the test split.

    Args:
        recipes: names or files.
        overrides: ``KEY=VALUE``, the same for all.
        over: values by dotted key, as they are written on the command line.
        seeds: of the runs; the data's split and the weights follow them.
        folder: of the sweep. A run goes to ``folder/LABEL/seed-N``, or ``fold-N``.

    Raises:
        RecipeError: a recipe can't be used, or two variants would be the same one.
        ValueError: folds with several seeds.
    """
    if folds is not None and len(seeds) > 1:
        raise ValueError(
            f"folds go with one seed, and {len(seeds)} are given: runs on folds share training pictures, and more "
            "seeds of each would hide how few data there are"
        )
    what: Literal["seed", "fold"] = "seed" if folds is None else "fold"
    numbers = seeds if folds is None else range(folds)
    parted = [] if folds is None else [f"train.seed={seeds[0]}", f"data.folds={folds}"]
    variants: dict[str, Variant] = {}
    for recipe, *values in itertools.product(recipes, *over.values()):
        assigned = dict(zip(over, map(str, values), strict=True))
        label = _label(recipe if len(recipes) > 1 or not assigned else None, assigned)
        if label in variants:
            raise RecipeError(f"the sweep names {label!r} twice; every combination is to be another one")
        place = folder / re.sub(r"[^A-Za-z0-9_.+=-]+", "_", label)
        runs = {number: place / f"{what}-{number}" for number in numbers}
        if any(runs.items() & variant.folders.items() for variant in variants.values()):
            raise RecipeError(
                f"{label!r} would share its folder {place} with another variant; rename the recipe"
            )
        settings = [*overrides, *parted, *(f"{key}={value}" for key, value in assigned.items())]
        resolved = resolve(load_recipe(recipe, settings, {"name": label, "output": str(folder)}))
        variants[label] = Variant(label, resolved, runs, what)
    return list(variants.values())


def _label(recipe: str | Path | None, assigned: Mapping[str, str]) -> str:
    """The words that tell a variant from the others; schedules and models speak for themselves."""
    words = [] if recipe is None else [Path(recipe).stem]
    for key, value in assigned.items():
        words.append(value if key in _PLAIN_WORDS else f"{key.rpartition('.')[2]}={value}")
    return " ".join(words)


def run_sweep(
    variants: Sequence[Variant],
    watch: Callable[[Recipe], Callback],
    announce: Callable[[str], None],
    jobs: int = 1,
) -> Iterator[Result | Failure]:
    """Trains what is not finished yet, seed by seed (or fold by fold); what is finished is read. Ends early if a run is
    stopped.

    With ``jobs`` above 1 so many runs are trained side by side, each in a process of its own, which nobody watches.

    A run that fails, in whatever way, is recorded and named, and the others go on; but of several processes one may
    have failed alone, and then nothing goes on.

    Raises:
        ValueError: a folder holds a run of another recipe.
    """
    runs = [(variant, seed) for seed in variants[0].folders for variant in variants]
    for variant, seed in runs:
        _check_same_recipe(variant.folders[seed], variant.numbered(seed))
    if jobs > 1:
        yield from _side_by_side(runs, announce, jobs)
        return
    for number, (variant, seed) in enumerate(runs, start=1):
        folder, recipe = variant.folders[seed], variant.numbered(seed)
        announce(f"[{number}/{len(runs)}] {variant.label}, {variant.over} {seed}")
        ended = _ended(folder, announce)
        outcome = _trained(recipe, folder, watch) if ended is None else ended
        _announce_failure(outcome, announce)
        yield outcome
        if outcome.status in ("stopped", "unsaved"):
            return


def _ended(folder: Path, announce: Callable[[str], None]) -> Result | Failure | None:
    """How the run in ``folder`` has ended; None where it is to be trained, for the first time or again."""
    outcome = _outcome(folder, announce)
    return None if isinstance(outcome, Failure) and outcome.again else outcome


def _announce_failure(outcome: Result | Failure, announce: Callable[[str], None]) -> None:
    if isinstance(outcome, Failure):
        then = "the same command tries" if outcome.again else f"delete {outcome.folder} to try"
        announce(f"failed: {outcome.reason}. The others go on; {then} this one again")


def _side_by_side(
    runs: Sequence[tuple[Variant, int]], announce: Callable[[str], None], jobs: int
) -> Iterator[Result | Failure]:
    """What has ended already, and then the others as they end."""
    waiting = []
    for variant, seed in runs:
        ended = _ended(variant.folders[seed], announce)
        if ended is None:
            waiting.append((variant, seed))
        else:
            yield ended
    announce(f"{len(waiting)} of {len(runs)} runs to train, {jobs} at a time")
    for number, ((variant, seed), found) in enumerate(side_by_side(_unwatched, waiting, jobs), start=1):
        if isinstance(found, BaseException):
            found = Failure(variant.folders[seed], f"its process ended: {found}", again=True)
        outcome: Result | Failure = found
        announce(f"[{number}/{len(waiting)}] {variant.label}, {variant.over} {seed}: {outcome.status}")
        _announce_failure(outcome, announce)
        yield outcome


def _unwatched(run: tuple[Variant, int]) -> Result | Failure:
    variant, seed = run
    return _trained(variant.numbered(seed), variant.folders[seed], lambda recipe: None)


def _trained(recipe: Recipe, folder: Path, watch: Callable[[Recipe], Callback | None]) -> Result | Failure:
    world = distributed.meet(recipe.train.rank_timeout_s)
    try:
        result = train(recipe, folder=folder, resume=folder.exists(), callback=watch(recipe))
    except Exception as error:
        again = not isinstance(error, BadNumbers)
        reason = (
            str(error) if isinstance(error, BadNumbers | ValueError) else f"{type(error).__name__}: {error}"
        )
        failure = Failure(folder, reason, again)
        if world.is_rank0:
            folder.mkdir(parents=True, exist_ok=True)
            content = json.dumps({"reason": reason, "again": again})
            replace_file(folder / FAILURE_FILE, content.encode())
        if again and world.size > 1:
            raise
        return failure
    if world.is_rank0:
        (folder / FAILURE_FILE).unlink(missing_ok=True)
    return result


def _outcome(folder: Path, announce: Callable[[str], None] = lambda line: None) -> Result | Failure | None:
    """How the run in ``folder`` has ended, if it has. What is damaged is named, and counts as not there: the run is
    gone on with, and sets it aside."""
    for file, read in ((RESULT_FILE, Result.load), (FAILURE_FILE, _failure)):
        if not (folder / file).exists():
            continue
        try:
            return read(folder)
        except NewerFormat:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            announce(
                f"{folder / file} is damaged ({type(error).__name__}: {error}): this run is gone on with"
            )
    return None


def _failure(folder: Path) -> Failure:
    content = read_json(folder / FAILURE_FILE)
    return Failure(folder, content["reason"], content.get("again", False))


def _check_same_recipe(folder: Path, recipe: Recipe) -> None:
    if not (folder / RECIPE_FILE).exists():
        return
    try:
        before = load_recipe(folder / RECIPE_FILE).model_dump()
    except (RecipeError, OSError):  # a damaged one is this run's own failure
        return
    now = recipe.model_dump()
    changed = sorted(key for key in now if key not in _NOT_COMPARED and before[key] != now[key])
    if changed:
        raise ValueError(
            f"{folder} holds a run of another recipe (it differs in {', '.join(changed)}); "
            "sweep into another folder, or remove this one"
        )


def tabulate(variants: Sequence[Variant]) -> list[Row]:
    """A row for every variant that has a run which has ended, over the seeds that have."""
    rows = []
    for variant in variants:
        outcomes = {seed: _outcome(folder) for seed, folder in variant.folders.items()}
        results = {seed: each for seed, each in outcomes.items() if isinstance(each, Result)}
        failed = [seed for seed, each in outcomes.items() if isinstance(each, Failure)]
        if results or failed:
            rows.append(replace(_row(variant.label, results, failed), over=variant.over))
    return rows


def _row(label: str, results: dict[int, Result], failed: list[int]) -> Row:
    runs = list(results.values())
    metric = metric_named(runs[0].shown[0] if runs else "accuracy")
    validation = [run.validation.get(metric.name, math.nan) for run in runs]
    test = [run.test.get(metric.name, math.nan) for run in runs if run.test]
    return Row(
        label=label,
        seeds=list(results),
        failed=failed,
        parameters=runs[0].parameters if runs else None,
        gmacs=runs[0].gmacs if runs else None,
        images_per_second=fmean(run.images_per_second for run in runs) if runs else None,
        metric=metric.name,
        validation_mean=_told(fmean, validation, 1),
        validation_std=_told(stdev, validation, 2),
        test_mean=_told(fmean, test, 1),
        test_std=_told(stdev, test, 2),
    )


def _told(figure: Callable[[list[float]], float], values: list[float], fewest: int) -> float | None:
    return figure(values) if len(values) >= fewest and all(map(math.isfinite, values)) else None


def as_cells(row: Row) -> dict[str, Any]:
    """The row as people read it."""
    return {
        "variant": row.label,
        f"{row.over}s": f"{len(row.seeds)}" + (f" ({len(row.failed)} failed)" if row.failed else ""),
        "parameters": _number(row.parameters, ","),
        "GMACs": _number(row.gmacs, ".4g"),
        "images/s": _number(row.images_per_second, ",.0f"),
        "measure": metric_named(row.metric).label,
        "validation": _mean(row, row.validation_mean, row.validation_std),
        "test": _mean(row, row.test_mean, row.test_std),
    }


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _mean(row: Row, mean: float | None, std: float | None) -> str:
    if mean is None:
        return "-"
    percent = metric_named(row.metric).form == "percent"
    mean_text, std_text = (
        f"{100 * value:.2f}" if percent else f"{value:.4f}" for value in (mean, std or 0.0)
    )
    return mean_text + ("" if std is None else f" ± {std_text}") + (" %" if percent else "")

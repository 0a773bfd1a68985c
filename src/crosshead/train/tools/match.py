"""A control for a recipe: another recipe, changed until it costs as much, in parameters, operations or time."""

import statistics
import time
from dataclasses import dataclass
from typing import Any, Literal

from crosshead.data.datasets.registry import open_splits
from crosshead.recipe.schema import Recipe
from crosshead.tasks import open_task
from crosshead.train.loop.model import build_model, count_gmacs, count_parameters
from crosshead.train.resolve import resolve
from crosshead.train.tools.profile import Trial

Cost = Literal["parameters", "gmacs", "time"]
CHANGES = ("mlp_ratio", "embed_dim", "depth")
NEAR = 0.01
_MOST_TIMES = 16  # how many times its size something may become


@dataclass(frozen=True)
class Match:
    """``recipe`` costs ``found``, where ``wanted`` was asked for; ``changed`` is what was changed, and to what."""

    recipe: Recipe
    by: Cost
    wanted: float
    found: float
    changed: str


def match_recipe(recipe: Recipe, to: Recipe, by: Cost, over: str | None = None) -> Match:
    """``recipe``, changed until its cost is that of ``to``, within 1 %.

    Parameters and multiply-adds are matched by the MLPs' width or else by the model's width or depth (``over`` names
    one of ``CHANGES``), time by the number of epochs: that of a step is measured of both in turn, on this machine.

    Raises:
        ValueError: nothing that may be changed comes near enough.
    """
    recipe, to = resolve(recipe), resolve(to)
    if by == "time":
        return _longer(recipe, to)
    wanted = _cost(to, by)
    nearest: Match | None = None
    for name in [over] if over else CHANGES:
        found = _search(recipe, name, by, wanted)
        if found is None:
            continue
        value, cost = found
        match = Match(_with_argument(recipe, name, value), by, wanted, cost, f"model.args.{name}={value:g}")
        if abs(cost / wanted - 1) <= NEAR:
            return match
        if nearest is None or abs(cost - wanted) < abs(nearest.found - wanted):
            nearest = match
    near = "nothing of it" if nearest is None else f"{nearest.changed} ({nearest.found:,.6g})"
    raise ValueError(
        f"{recipe.name} can't be changed to {wanted:,.6g} {by} within 1 %: the nearest is {near}; "
        "expected a model that takes mlp_ratio, embed_dim or depth and has room for it"
    )


def _search(recipe: Recipe, name: str, by: Cost, wanted: float) -> tuple[float, float] | None:
    """The value of a model's argument that comes nearest, and its cost; None where the model takes no such number."""
    present = _present(recipe, name)
    if present is None:
        return None
    width, heads = present["embed_dim"], present["num_heads"]
    # The argument counts in units: of one channel in the MLPs, of one channel a head, of one block.
    unit = {"mlp_ratio": 1 / width, "embed_dim": heads, "depth": 1}[name]
    start = round(present[name] / unit)

    def cost(units: int) -> float:
        # Half a channel more, so that the model's own rounding down arrives at it.
        value = (units + 0.5) * unit if name == "mlp_ratio" else units * unit
        return _cost(_with_argument(recipe, name, value), by)

    low, high = 1, start
    while cost(high) < wanted:
        low, high = high, 2 * high
        if high > _MOST_TIMES * start:
            break
    while high - low > 1:  # the cost grows with the units
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) < wanted else (low, middle)
    units = min((low, high), key=lambda units: abs(cost(units) - wanted))
    value = (units + 0.5) * unit if name == "mlp_ratio" else units * unit
    return value, cost(units)


def _present(recipe: Recipe, name: str) -> dict[str, float] | None:
    """Width, depth, heads and MLP ratio of a plain ViT, as it is built; None for a model of another shape."""
    model: Any = build_model(recipe, open_task(recipe, open_splits(recipe).info), from_weights=False)
    try:
        blocks = model.blocks
        width, hidden = model.embed_dim, blocks[0].mlp.fc1.out_features
        heads, depth = blocks[0].attn.num_heads, len(blocks)
    except (AttributeError, TypeError, IndexError):
        return None
    present = {"embed_dim": width, "mlp_ratio": hidden / width, "depth": depth, "num_heads": heads}
    if name not in present:
        raise ValueError(f"{name!r} can't be matched; expected one of {', '.join(CHANGES)}")
    return present


def _with_argument(recipe: Recipe, name: str, value: float) -> Recipe:
    value = int(value) if name != "mlp_ratio" else value
    model = recipe.model.model_copy(update={"args": {**recipe.model.args, name: value}})
    return recipe.model_copy(update={"model": model})


def _cost(recipe: Recipe, by: Cost) -> float:
    task = open_task(recipe, open_splits(recipe).info)
    model = build_model(recipe, task, from_weights=False)
    return count_parameters(model) if by == "parameters" else count_gmacs(*task.example(model))


def _longer(recipe: Recipe, to: Recipe) -> Match:
    """``recipe`` for as many epochs as take the time that ``to`` takes."""
    trials = [Trial(recipe), Trial(to)]
    ours, theirs = (
        step * trial.lengths.steps_per_epoch for step, trial in zip(step_seconds(trials), trials, strict=True)
    )
    wanted = theirs * trials[1].lengths.epochs
    epochs = max(1, round(wanted / ours))
    found = epochs * ours
    if abs(found / wanted - 1) > NEAR:
        raise ValueError(
            f"{recipe.name} takes {ours:.3g} s an epoch, of which no whole number comes within 1 % of the "
            f"{wanted:.4g} s of {to.name}; give {to.name} more epochs"
        )
    train = recipe.train.model_copy(update={"epochs": epochs, "steps": None})
    return Match(recipe.model_copy(update={"train": train}), "time", wanted, found, f"train.epochs={epochs}")


def step_seconds(trials: list[Trial], rounds: int = 10) -> list[float]:
    """The median time of a training step of each, taken in turn so that all have the machine alike."""
    taking = [trial.steps() for trial in trials]
    seconds: list[list[float]] = [[] for _ in trials]
    for number in range(rounds + 2):
        for steps, found in zip(taking, seconds, strict=True):
            begun = time.perf_counter()
            next(steps)
            if number >= 2:  # the first ones warm up
                found.append(time.perf_counter() - begun)
    return [statistics.median(found) for found in seconds]

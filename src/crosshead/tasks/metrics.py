"""What metrics are called, how they are written, which way is better, and how they are computed: a function that reads
what an evaluation has gathered. Every task's stand in this one table, beside those of other packages."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from crosshead.data.datasets.contents import Contents
from crosshead.plugins import Registry
from crosshead.recipe.schema import TaskConfig

Form = Literal["percent", "number", "count"]
Lacks = Callable[[Contents], str | None]
F = TypeVar("F", bound=Callable[[Any], float])


@dataclass(frozen=True)
class Metric:
    """A number that an evaluation gives, under ``name`` in results and logs.

    ``label`` is what a person reads. ``form`` is how the number is written: a share of 1 in percent, a plain number,
    or a count. ``functions`` compute it, each of one kind of outputs, such as ``ClassificationOutputs``; ``lacking``
    say of a split, before any of it is read, why the number can't be told there.
    """

    name: str
    label: str
    higher_is_better: bool = True
    form: Form = "percent"
    functions: dict[type, Callable[[Any], float]] = field(default_factory=dict, compare=False, repr=False)
    lacking: dict[type, Lacks] = field(default_factory=dict, compare=False, repr=False)

    def reads(self, kind: type) -> bool:
        """Whether it can be computed of outputs of that kind."""
        return any(each in self.functions for each in kind.__mro__)

    def compute(self, outputs: Any) -> float:
        """The number, NaN where it is undefined; of outputs that it ``reads``."""
        kind = next(each for each in type(outputs).__mro__ if each in self.functions)
        return float(self.functions[kind](outputs))

    def lacks(self, kind: type, held: Contents) -> str | None:
        """What a split lacks that holds this, so that the number could be told ("no label"); None where it can."""
        found = next((self.lacking[each] for each in kind.__mro__ if each in self.lacking), None)
        return None if found is None else found(held)

    def better(self, one: float, other: float) -> bool:
        """Whether ``one`` is strictly better; a number always beats NaN."""
        if math.isnan(one) or math.isnan(other):
            return not math.isnan(one) and math.isnan(other)
        return one > other if self.higher_is_better else one < other

    def selects(self, new: dict[str, float], best: dict[str, float]) -> bool:
        """Whether a validation with the metrics ``new`` takes the place of the ``best`` so far, which is empty where
        there is none. One in which this metric is no number never does.

        Small validation splits tie often: then the lower loss decides, and if that ties too, the later one, which was
        trained longer, at a lower rate.
        """
        value, before = new.get(self.name, math.nan), best.get(self.name, math.nan)
        if not math.isfinite(value):
            return False
        if self.better(value, before) or self.better(before, value):
            return self.better(value, before)
        return not METRICS["loss"].better(best.get("loss", math.nan), new.get("loss", math.nan))

    def text(self, value: float) -> str:
        """``98.33%``, ``0.0712`` or ``359``; ``-`` of what is undefined."""
        if math.isnan(value):
            return "-"
        if self.form == "count":
            return f"{value:.0f}"
        return f"{value:.2%}" if self.form == "percent" else f"{value:.4f}"


METRICS: Registry[Metric] = Registry("crosshead.metrics", "metric")
for _metric in (
    Metric("count", "images", form="count"),
    Metric("skipped", "images left out", higher_is_better=False, form="count"),
):
    METRICS.add(_metric.name, _metric)


def register_metric(
    name: str,
    label: str | None = None,
    *,
    of: type,
    higher_is_better: bool = True,
    form: Form = "percent",
    lacks: Lacks | None = None,
) -> Callable[[F], F]:
    """Decorator: the function computes the metric ``name`` of what an evaluation has gathered of all images, as a
    number, or NaN where it is undefined. ``task.metrics`` and ``task.select_by`` of a recipe then know it.

    Another package offers one through an entry point of the group ``crosshead.metrics`` under that name.

    Args:
        name: under which results and logs have it; one metric may be computed of several kinds of outputs.
        label: what a person reads; the name with blanks unless given.
        of: what the function reads: ``crosshead.tasks.ClassificationOutputs``, ``MultilabelOutputs``,
            ``RegressionOutputs``, ``SegmentationOutputs``, ``DetectionOutputs`` or ``MaskOutputs``.
        higher_is_better, form: see ``Metric``.
        lacks: says of what a split holds why the metric is undefined there, or None.

    Raises:
        ValueError: for a name that another metric has.
    """

    def register(function: F) -> F:
        metric = Metric(name, label or name.replace("_", " "), higher_is_better, form)
        known = METRICS.setdefault(name, metric)
        if known != metric or of in known.functions:
            raise ValueError(f"metric {name!r} is registered already; choose another name")
        known.functions[of] = function
        if lacks is not None:
            known.lacking[of] = lacks
        return function

    return register


def chosen_metrics(
    config: TaskConfig, own: Sequence[str], of: type, without: Sequence[str] = ()
) -> tuple[Metric, tuple[str, ...]]:
    """The metric that selects, and all that are computed, by name: a task's ``own``, the first of which selects unless
    ``task.select_by`` says another, and what ``task.metrics`` names besides.

    Raises:
        ValueError: no such metric, or one that can't be computed of what the task's evaluation gathers, ``of``, or that
            says nothing of this data (``without``).
    """
    said = {"task.metrics": config.metrics, "task.select_by": [config.select_by] if config.select_by else []}
    computed = list(own)
    for key, names in said.items():
        for name in names:
            if name in computed:
                continue
            if name in without or not METRICS.find(name, key).reads(of):
                others = (each for each in METRICS if METRICS[each].reads(of) and each not in without)
                known = dict.fromkeys([*own, *others])
                raise ValueError(f"{key} is {name!r}; this task and data give {', '.join(known)}")
            computed.append(name)
    return METRICS[config.select_by or own[0]], tuple(computed)


def compute_metrics(names: Sequence[str], outputs: Any) -> dict[str, float]:
    """The metrics by name, in that order."""
    return {name: METRICS[name].compute(outputs) for name in names}


def metric_named(name: str) -> Metric:
    """The metric of that name; of one that isn't installed here a plain number, as a run of elsewhere may have."""
    try:
        return METRICS.find(name)
    except ValueError:
        return Metric(name, name, form="number")

"""Recipes against one control, from their finished runs: what may be said, and all that it rests on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev, variance

from scipy import stats

from crosshead.compare.designs import correlation, unpaired_because
from crosshead.compare.differences import (
    FEWEST_SEEDS,
    Difference,
    paired,
    resampled,
    welch,
)
from crosshead.compare.recipes import (
    POWER,
    Interval,
    against_control,
    detectable,
    holm,
    mean_interval,
    seeds_needed,
)
from crosshead.compare.runs import Group, group_runs, read_runs
from crosshead.tasks.metrics import Metric, metric_named

FOLDS = (
    "These are folds, not seeds: the runs of a recipe share most of their training pictures, so that their values are "
    "not independent, and their plain spread says too little. Intervals and p are the corrected resampled t test's "
    "(Nadeau and Bengio 2003), which allows for that, approximately. They tell whether the difference would be there "
    "with other pictures of this kind, as many to learn from. They tell nothing of pictures from elsewhere, and do not "
    "part what another seed changes from what other pictures change."
)
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Against:
    """One recipe against the control. ``unpaired`` says why seeds were not paired, ``correlation`` is the pairs'."""

    group: Group
    difference: Difference
    sentence: str
    unpaired: str | None
    correlation: float | None


@dataclass(frozen=True)
class Comparison:
    """``level`` is at which a difference is claimed: .95, or with several planned looks, what each of them may use."""

    metric: Metric
    groups: list[Group]
    against: list[Against]
    level: float
    looks: int
    notes: list[str]

    @property
    def control(self) -> Group:
        return self.groups[0]

    def values(self, group: Group) -> list[float]:
        return test_values(group, self.metric)

    def interval(self, group: Group) -> Interval:
        """The mean and its interval (of 95 %), over seeds; over folds with what these share allowed for."""
        values = self.values(group)
        return mean_interval(values, ratio=None if group.folds is None else group.ratio)


def compare_runs(folders: Sequence[Path], metric: str | None = None, looks: int = 1) -> Comparison:
    """Compares the recipes of finished runs with that of the first run, by one metric on the test images.

    Args:
        folders: of runs, or of sweeps.
        metric: named beforehand; the first that the task shows unless given.
        looks: how many times it was planned to look at these recipes as seeds are added; each has its share of .05.

    Raises:
        ValueError: runs that can't be compared, one recipe alone, fewer than three seeds of one, or no such metric.
    """
    if looks < 1:
        raise ValueError(f"looks must be at least 1, got {looks}")
    groups = group_runs(read_runs(folders))
    if len(groups) < 2:
        raise ValueError(
            f"all {len(groups[0].runs)} runs are of one recipe ({groups[0].label}); expected those of two or more"
        )
    for group in groups:
        if len(group.runs) < FEWEST_SEEDS:
            count = len(group.runs)
            if group.folds is not None:
                raise ValueError(
                    f"{group.label} has {count} folds; expected at least {FEWEST_SEEDS} (crosshead sweep RECIPE "
                    "--folds 5)"
                )
            raise ValueError(
                f"{group.label} has {count} seed{'s' * (count > 1)} ({group.runs[0].folder}), which says nothing of "
                f"the recipe; expected at least {FEWEST_SEEDS} of each, so train more (crosshead sweep RECIPE "
                "--seeds 0,1,2)"
            )
    chosen = _metric(groups, metric)
    level = 1 - 0.05 / looks
    return Comparison(chosen, groups, _against(groups, chosen, level), level, looks, _notes(groups))


def test_values(group: Group, metric: Metric) -> list[float]:
    """The metric on the test images, a value a seed."""
    return [run.result.test[metric.name] for run in group.runs]


def _metric(groups: Sequence[Group], name: str | None) -> Metric:
    runs = [run for group in groups for run in group.runs]
    for run in runs:
        if not run.result.test:
            raise ValueError(f"{run.folder} has no test split, and nothing to be compared by")
    known = [each for each in runs[0].result.test if metric_named(each).form != "count"]
    chosen = name or runs[0].result.shown[0]
    if chosen not in known:
        raise ValueError(f"the runs have no metric {chosen!r}; expected one of {', '.join(known)}")
    for run in runs:
        if not math.isfinite(run.result.test.get(chosen, math.nan)):
            raise ValueError(f"{run.folder} has no {chosen} on its test images; choose another metric")
    return metric_named(chosen)


def _against(groups: Sequence[Group], metric: Metric, level: float) -> list[Against]:
    """Dunnett's test, or Holm's over Welch's, for several; for one the paired test where the design is paired."""
    control, *others = groups
    # Shares of n images come in steps of 1 / n.
    count = control.runs[0].result.test.get("count", math.nan)
    grain = 1 / count if metric.form == "percent" and count > 0 else 0.0
    base = test_values(control, metric)
    values = {group.label: test_values(group, metric) for group in others}
    reasons = {group.label: None if group.folds else unpaired_because(control, group) for group in others}
    if control.folds is not None:
        found = _on_folds(control, others, base, values, level, grain)
    elif len(others) == 1:
        label = others[0].label
        test = welch if reasons[label] else paired
        found = {label: test(base, values[label], level, grain)}
    else:
        found = against_control(base, values, level, grain)
    return [
        Against(
            group,
            found[group.label],
            _sentence(
                group.label, control.label, found[group.label], base, values[group.label], metric, level
            ),
            reasons[group.label],
            None if reasons[group.label] else correlation(base, values[group.label]),
        )
        for group in others
    ]


def _on_folds(
    control: Group,
    others: Sequence[Group],
    base: Sequence[float],
    values: dict[str, list[float]],
    level: float,
    grain: float,
) -> dict[str, Difference]:
    """Each against the control, fold by fold; of several with Holm's adjustment."""
    ratios = {group.label: max(group.ratio, control.ratio) for group in others}
    found = {label: resampled(base, its, ratios[label], level, grain) for label, its in values.items()}
    adjusted = holm([difference.p for difference in found.values()])
    return {
        label: replace(difference, p_adjusted=p)
        for (label, difference), p in zip(found.items(), adjusted, strict=True)
    }


def _sentence(
    label: str,
    control: str,
    found: Difference,
    a: Sequence[float],
    b: Sequence[float],
    metric: Metric,
    level: float,
) -> str:
    """What may be quoted, with what such runs could have found."""
    said = (
        f"{_signed(found.difference, metric)} [{_signed(found.low, metric)}, {_signed(found.high, metric)}]"
    )
    who = f"{label} against {control}, test {metric.label}"
    if found.differs(level):
        higher = found.difference > 0
        return (
            f"{who}: {'higher' if higher else 'lower'}, {said} {_unit(metric)}; {_seeds(found)}, "
            f"{_test(found)}, p {found.p_adjusted:.2g}"
        ).replace(" ;", ";")
    if math.isnan(found.p):
        run = "fold" if found.method == "resampled" else "seed"
        return f"{who}: no {run} differs from another in either, so that nothing can be tested"
    if found.method == "resampled":
        # Half the interval, and what the power takes more, in the same standard error.
        half = (found.high - found.low) / 2
        quantiles = [float(stats.t.ppf(share, found.seeds[0] - 1)) for share in ((1 + level) / 2, POWER)]
        finds = half * sum(quantiles) / quantiles[0]
        return (
            (
                f"{who}: no difference shown: {said} {_unit(metric)}; {_seeds(found)} that vary like these find "
                f"{_plain(finds, metric)} {_unit(metric)} four times in five"
            )
            .replace(" ;", ";")
            .replace("  ", " ")
        )
    pairs = found.method == "paired"
    s = stdev([y - x for x, y in zip(a, b, strict=True)]) if pairs else _pooled(a, b)
    finds = detectable(min(found.seeds), s, paired=pairs, level=level)
    needed = seeds_needed(finds / 4, s, paired=pairs, level=level) if finds else None
    more = f"; {needed} would be needed for {_plain(finds / 4, metric)}" if needed else ""
    return (
        (
            f"{who}: no difference shown: {said} {_unit(metric)}; {_seeds(found)} that vary like these find "
            f"{_plain(finds, metric)} {_unit(metric)} four times in five{more}"
        )
        .replace("  ", " ")
        .replace(" ;", ";")
    )


def _test(found: Difference) -> str:
    if found.method == "resampled":
        return "corrected resampled t test"
    return "paired t test" if found.method == "paired" else f"{found.method}'s test"


def _pooled(a: Sequence[float], b: Sequence[float]) -> float:
    return math.sqrt((variance(a) + variance(b)) / 2)


def _seeds(found: Difference) -> str:
    a, b = found.seeds
    if found.method == "resampled":
        return f"{_word(a)} folds"
    if found.method == "paired":
        return f"{_word(a)} paired seeds"
    return f"{_word(a)} seeds of each" if a == b else f"{a} and {b} seeds"


def _word(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)


def _unit(metric: Metric) -> str:
    return "points" if metric.form == "percent" else ""


def _signed(value: float, metric: Metric) -> str:
    return f"{100 * value:+.2f}" if metric.form == "percent" else f"{value:+.4f}"


def _plain(value: float, metric: Metric) -> str:
    return f"{100 * value:.2g}" if metric.form == "percent" else f"{value:.2g}"


def _notes(groups: Sequence[Group]) -> list[str]:
    """What else is to be known, beside how the recipes differ."""
    notes = [FOLDS] if groups[0].folds is not None else []
    lengths = {group.label: group.runs[0].result.step for group in groups}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{label} {steps}" for label, steps in lengths.items())
        notes.append(f"They were trained for other numbers of steps ({said}): the difference is of that too.")
    if any(run.design is None for group in groups for run in group.runs):
        notes.append("Some runs have no whole record of their test images; the count of these agrees.")
    versions = [run.versions for group in groups for run in group.runs]
    other = {key for each in versions for key in each if each.get(key) != versions[0].get(key)}
    if other:
        notes.append(f"They were made with different {', '.join(sorted(other))}.")
    if any(
        group.runs[0].recipe.data.validation != groups[0].runs[0].recipe.data.validation for group in groups
    ):
        notes.append("They held out other shares of the training images.")
    return notes


def rows_of(comparison: Comparison) -> list[dict[str, str]]:
    """The table as people read it: quality beside cost."""
    rows = []
    against = {each.group.label: each for each in comparison.against}
    metric = comparison.metric
    for group in comparison.groups:
        values = comparison.values(group)
        interval = comparison.interval(group)
        result = group.runs[0].result
        unit = _unit(metric)
        apart = against[group.label].difference if group.label in against else None
        rows.append(
            {
                "recipe": group.label,
                "seeds" if group.folds is None else "folds": str(len(values)),
                f"test {metric.label}": metric.text(interval.mean),
                "95 % interval": f"{metric.text(interval.low)} to {metric.text(interval.high)}",
                "difference": "-" if apart is None else f"{_signed(apart.difference, metric)} {unit}".strip(),
                "its interval": "-" if apart is None else _interval(apart, metric),
                "p": "-" if apart is None or math.isnan(apart.p_adjusted) else f"{apart.p_adjusted:.2g}",
                "test": "-" if apart is None else apart.method,
                "parameters": f"{result.parameters:,}",
                "GMACs": f"{result.gmacs:.4g}",
                "images/s in training": f"{fmean(run.result.images_per_second for run in group.runs):,.0f}",
                "images/s in the test": _mean_of(group, "test_images_per_second"),
                "peak memory, MiB": _mean_of(group, "peak_memory_mib"),
            }
        )
    for title in ("images/s in the test", "peak memory, MiB"):
        if all(row[title] == "-" for row in rows):  # runs of earlier versions
            for row in rows:
                del row[title]
    return rows


def _mean_of(group: Group, name: str) -> str:
    """The mean over a group's runs of what each run's result may have; "-" where one has not."""
    known = [getattr(run.result, name) for run in group.runs]
    return "-" if None in known else f"{fmean(known):,.0f}"


def _interval(difference: Difference, metric: Metric) -> str:
    if math.isnan(difference.low):
        return "-"
    return f"{_signed(difference.low, metric)} to {_signed(difference.high, metric)}"

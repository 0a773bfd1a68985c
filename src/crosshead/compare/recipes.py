"""Whether recipes differ, by the means of their seeds: two by Welch's t, several against one control by Dunnett's test;
and how large a difference so many seeds find.

Seeds dominate here. Intervals from images alone cover a difference of recipes in 16 to 20 % of the cases where they say
95 %; Welch's t on per-seed means covers it in 95 to 97 % from three seeds on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from crosshead.compare.differences import FEWEST_SEEDS as FEWEST_SEEDS
from crosshead.compare.differences import Difference, is_constant, resampled_error, spread, welch


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its confidence interval (Student's t); the ends are NaN below two seeds."""

    mean: float
    low: float
    high: float
    seeds: int


def mean_interval(values: Sequence[float], level: float = 0.95, ratio: float | None = None) -> Interval:
    """The mean of one recipe's seeds and its interval; of its folds, with ``ratio`` test pictures for each training
    picture, see ``differences.resampled``."""
    found = np.asarray(values, dtype=float)
    if not len(found):
        raise ValueError("expected the values of at least one seed, got none")
    half = math.nan
    if len(found) > 1:
        half = float(stats.t.ppf((1 + level) / 2, len(found) - 1)) * resampled_error(found, ratio or 0.0)
    mean = float(found.mean())
    return Interval(mean, mean - half, mean + half, len(found))


def compare_recipes(
    a: Mapping[str, Sequence[float]], b: Mapping[str, Sequence[float]], level: float = 0.95
) -> dict[str, Difference]:
    """B less A for each measure, a value a seed, all on the same fixed images; Holm over the measures named.

    Raises:
        ValueError: fewer than three seeds of a recipe, or measures that only one of them has.
    """
    if a.keys() != b.keys():
        raise ValueError(f"expected the same measures of both recipes, got {sorted(a)} and {sorted(b)}")
    found = {name: _named(name, a[name], b[name], level) for name in a}
    adjusted = holm([difference.p for difference in found.values()])
    return {
        name: replace(difference, p_adjusted=p)
        for (name, difference), p in zip(found.items(), adjusted, strict=True)
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of p values that are judged together; NaN, where there was no test, stays."""
    known = [i for i, p in enumerate(p_values) if not math.isnan(p)]
    count, highest = len(known), 0.0
    adjusted = [math.nan] * len(p_values)
    for place, i in enumerate(sorted(known, key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (count - place) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _named(name: str, a: Sequence[float], b: Sequence[float], level: float) -> Difference:
    try:
        return welch(a, b, level)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


# Dunnett's test takes one variance for all. Where a group's is this many times the others', and more than chance makes
# of few seeds, Welch's test one by one, with Holm, takes its place.
MOST_APART = 3.0


def against_control(
    control: Sequence[float],
    others: Mapping[str, Sequence[float]],
    level: float = 0.95,
    grain: float = 0.0,
) -> dict[str, Difference]:
    """Each of ``others`` less ``control``: by Dunnett's test, or by Welch's with Holm's adjustment where variances
    differ more than threefold. Dunnett's intervals hold all at once, Welch's each by itself."""
    alone = {name: welch(control, values, level, grain) for name, values in others.items()}
    samples = [spread(values, grain) for values in (control, *others.values())]
    if len(others) < 2 or not _alike(samples):
        adjusted = holm([difference.p for difference in alone.values()])
        return {
            name: replace(difference, p_adjusted=p)
            for (name, difference), p in zip(alone.items(), adjusted, strict=True)
        }
    # Its integral is drawn at random points: of a fixed seed, so that the same runs give the same numbers.
    test = stats.dunnett(*samples[1:], control=samples[0], rng=0)
    interval = test.confidence_interval(level)
    return {
        name: replace(
            difference,
            low=float(interval.low[i]),
            high=float(interval.high[i]),
            p_adjusted=float(test.pvalue[i]),
            method="Dunnett",
        )
        for i, (name, difference) in enumerate(alone.items())
    }


def _alike(samples: Sequence[np.ndarray]) -> bool:
    """Whether no sample's variance stands out from the pooled one of the others.

    The largest of many sample variances is several times the smallest by chance alone, so that their plain ratio would
    hardly ever let Dunnett's test be.
    """
    if any(is_constant(sample) for sample in samples):
        return False
    squares = [float(sample.var(ddof=1) * (len(sample) - 1)) for sample in samples]
    freedom = [len(sample) - 1 for sample in samples]
    for own, df in zip(squares, freedom, strict=True):
        rest = sum(freedom) - df
        ratio = (own / df) / ((sum(squares) - own) / rest)
        if ratio > max(MOST_APART, float(stats.f.ppf(1 - 0.05 / len(samples), df, rest))):
            return False
    return True


POWER = 0.8
_FEW = {3: 1.15, 4: 1.06, 5: 1.03}  # unpaired seeds a side -> what the formula is to be multiplied by
_MOST_SEEDS = 10_000


def detectable(seeds: int, deviation: float, *, paired: bool, level: float = 0.95) -> float:
    """The difference that ``seeds`` (of each recipe, or pairs) find with a chance of 0.8.

    Args:
        deviation: the standard deviation of one recipe's seeds, or of the pairs' differences.
        level: at which a difference is claimed.
    """
    freedom = seeds - 1 if paired else 2 * seeds - 2
    quantiles = float(stats.t.ppf((1 + level) / 2, freedom) + stats.t.ppf(POWER, freedom))
    if paired:
        return quantiles * deviation / math.sqrt(seeds)
    return quantiles * deviation * math.sqrt(2 / seeds) * _FEW.get(seeds, 1.0)


def seeds_needed(difference: float, deviation: float, *, paired: bool, level: float = 0.95) -> int | None:
    """The fewest seeds, three or more, that find ``difference`` four times in five; None beyond 10,000."""
    low, high = 3, 3
    while detectable(high, deviation, paired=paired, level=level) > difference:
        low, high = high, 2 * high
        if low > _MOST_SEEDS:
            return None
    while low < high:  # it falls as seeds are added
        middle = (low + high) // 2
        enough = detectable(middle, deviation, paired=paired, level=level) <= difference
        low, high = (low, middle) if enough else (middle + 1, high)
    return high

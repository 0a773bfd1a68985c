"""The difference of two groups of seeds, and how sure it is: Welch's t, or paired where the design is.

A share of n test images comes in steps of 1 / n, the grain. Each side's variance is taken with that of one image's
rounding, 1 / (12 n²), so that seeds that happen to agree to the image prove nothing.

Folds are no seeds: their runs share training pictures, so that the variance between them is too small, and there is no
unbiased estimate of the right one. ``resampled`` is the corrected resampled t test (Nadeau and Bengio, Machine Learning
52, 2003, section 3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

FEWEST_SEEDS = 3

Method = Literal["Welch", "paired", "Dunnett", "resampled"]


@dataclass(frozen=True)
class Difference:
    """Recipe B less recipe A: the difference of their seeds' means, its interval, and how likely chance gives as much.

    ``p_adjusted`` is for all that was compared together (it is ``p`` where nothing else was), and ``differs`` is judged
    by it. Where nothing varies there is no test: interval and p are NaN, and nothing differs.
    """

    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    seeds: tuple[int, int]
    method: Method = "Welch"

    def differs(self, level: float = 0.95) -> bool:
        return self.p_adjusted < 1 - level


def welch(a: Sequence[float], b: Sequence[float], level: float = 0.95, grain: float = 0.0) -> Difference:
    """B less A by Welch's t.

    Raises:
        ValueError: fewer than three seeds on a side.
    """
    _check_seeds(len(a), len(b))
    first, second = spread(a, grain), spread(b, grain)
    difference, seeds = float(np.mean(b) - np.mean(a)), (len(a), len(b))
    if is_constant(first) and is_constant(second):
        return Difference(difference, math.nan, math.nan, math.nan, math.nan, seeds)
    return _judged(stats.ttest_ind(second, first, equal_var=False), difference, seeds, "Welch", level)


def paired(a: Sequence[float], b: Sequence[float], level: float = 0.95, grain: float = 0.0) -> Difference:
    """B less A by the t test on the differences of pairs: ``a[i]`` and ``b[i]`` are one seed's.

    Raises:
        ValueError: fewer than three pairs, or values without a partner.
    """
    if len(a) != len(b):
        raise ValueError(f"expected a value of each seed on both sides, got {len(a)} and {len(b)}")
    _check_seeds(len(a), len(b))
    apart = spread(np.asarray(b, dtype=float) - np.asarray(a, dtype=float), math.sqrt(2) * grain)
    difference, seeds = float(np.mean(apart)), (len(a), len(b))
    if is_constant(apart):
        return Difference(difference, math.nan, math.nan, math.nan, math.nan, seeds, "paired")
    return _judged(stats.ttest_1samp(apart, 0.0), difference, seeds, "paired", level)


def resampled(
    a: Sequence[float], b: Sequence[float], ratio: float, level: float = 0.95, grain: float = 0.0
) -> Difference:
    """B less A by the corrected resampled t test: ``a[k]`` and ``b[k]`` are of fold k, and ``ratio`` is how many test
    pictures a fold has for each training picture. The variance of the mean of K differences is taken as
    (1 / K + ``ratio``) of theirs, in place of 1 / K.

    Raises:
        ValueError: fewer than three folds, or values without a partner.
    """
    if len(a) != len(b):
        raise ValueError(f"expected a value of each fold on both sides, got {len(a)} and {len(b)}")
    _check_seeds(len(a), len(b))
    apart = spread(np.asarray(b, dtype=float) - np.asarray(a, dtype=float), math.sqrt(2) * grain)
    difference, folds = float(np.mean(apart)), len(apart)
    if is_constant(apart):
        return Difference(difference, math.nan, math.nan, math.nan, math.nan, (folds, folds), "resampled")
    error = resampled_error(apart, ratio)
    half = float(stats.t.ppf((1 + level) / 2, folds - 1)) * error
    p = 2 * float(stats.t.sf(abs(difference) / error, folds - 1))
    return Difference(difference, difference - half, difference + half, p, p, (folds, folds), "resampled")


def resampled_error(values: Sequence[float] | np.ndarray, ratio: float) -> float:
    """The standard error of the mean of values on folds, one a fold."""
    found = np.asarray(values, dtype=float)
    return float(found.std(ddof=1) * math.sqrt(1 / len(found) + ratio))


def spread(values: Sequence[float] | np.ndarray, grain: float) -> np.ndarray:
    """``values`` pulled apart about their mean, so that their variance is larger by grain² / 12."""
    found = np.asarray(values, dtype=float)
    if grain == 0:
        return found
    mean, variance = found.mean(), found.var(ddof=1)
    wanted = variance + grain**2 / 12
    # Rounding in a mean of equal numbers is no variance: there any pattern around the mean serves.
    pattern = np.linspace(-1, 1, len(found)) if is_constant(found) else found - mean
    return mean + pattern * math.sqrt(wanted / pattern.var(ddof=1))


def is_constant(values: np.ndarray) -> bool:
    """Whether they are all the same but for rounding."""
    return float(np.ptp(values)) <= 1e-12 * float(np.abs(values).max(initial=0.0))


def _check_seeds(a: int, b: int) -> None:
    if min(a, b) < FEWEST_SEEDS:
        raise ValueError(
            f"{a} and {b} seeds say nothing of the recipes; expected at least {FEWEST_SEEDS} of each, so train more "
            "seeds (crosshead sweep RECIPE --seeds 0,1,2)"
        )


def _judged(test: Any, difference: float, seeds: tuple[int, int], method: Method, level: float) -> Difference:
    interval, p = test.confidence_interval(level), float(test.pvalue)
    return Difference(difference, float(interval.low), float(interval.high), p, p, seeds, method)

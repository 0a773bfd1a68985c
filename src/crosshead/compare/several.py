"""Several recipes against one control, judged together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from crosshead.compare.differences import Difference, is_constant, spread, welch
from crosshead.compare.recipes import holm

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

"""How large a difference must be for so many seeds to find it four times in five, and how many a difference takes.

By the t distributions at both ends, which the simulations agree with but for few seeds of unpaired groups; there
they say by how much more.
"""

import math

from scipy import stats

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

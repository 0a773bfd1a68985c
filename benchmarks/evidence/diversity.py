"""Do runs with more diverse heads name more pictures rightly? Of the runs of ``mohsa_pictures``, by correlation.

*Within kinds*: each run less the mean of its family and kind, averaged over the kinds of a seed. *Between kinds*:
the kinds' means, of the kinds of ViT. *Gains*: of overlapped heads over plain ones by seed, in the measure against in
accuracy, each less its family's mean. Pearson's r with Fisher's interval; measures are means over blocks.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import correlation, fmean
from typing import Any

# Measure -> how it is called in the table. The first was named beforehand as what is asked; the others describe.
ASKED = {
    "effective_heads_cka": "effective heads (CKA) a head",
    "output_variance": "variance of outputs over heads",
    "map_divergence": "divergence of maps",
}
PICTURES = {"heads": "the same 256", "heads on right pictures": "rightly named"}
_Z = 1.959964


def lines(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A Markdown table; a dash where too few runs are through."""
    found = [
        "| measure | pictures | within kinds | seeds | between kinds of ViT | kinds | gains of pairs | pairs |",
        "| --- | --- | --- | ---: | --- | ---: | --- | ---: |",
    ]
    for measure, name in ASKED.items():
        for pictures, which in PICTURES.items():
            points = [
                (run["cell"], run["seed"], fmean(run[pictures][measure]), run["accuracy"])
                for run in runs
                if measure in run[pictures]
            ]
            seeds, gains, between = _by_seed(points), _gains(points), _between(points)
            told = [
                f"{_shown(_centred(seeds), len(seeds))} | {sum(map(len, seeds.values()))}",
                f"{_shown(between, 1)} | {len(between)}",
                f"{_shown(_centred(gains), len(gains))} | {sum(map(len, gains.values()))}",
            ]
            found.append(" | ".join([f"| {name}", which, *told]) + " |")
    return found


Pairs = list[tuple[float, float]]
Points = list[tuple[str, int, float, float]]  # cell, seed, measure, accuracy


def _by_cell(points: Points) -> dict[str, Pairs]:
    found: dict[str, Pairs] = {}
    for cell, _, x, y in points:
        found.setdefault(cell, []).append((x, y))
    return {cell: pairs for cell, pairs in found.items() if len(pairs) > 2}


def _by_seed(points: Points) -> dict[str, Pairs]:
    """Family -> of each seed the mean over kinds, each run less its kind's mean: kinds of one seed begin alike and see
    the same order, and correlate by that, so that they are no runs apart."""
    means = {
        cell: [fmean(side) for side in zip(*pairs, strict=True)] for cell, pairs in _by_cell(points).items()
    }
    held: dict[str, dict[int, Pairs]] = {}
    for cell, seed, x, y in points:
        if cell in means:
            family = held.setdefault(cell.partition("/")[0], {})
            family.setdefault(seed, []).append((x - means[cell][0], y - means[cell][1]))
    return {
        family: [(fmean(x for x, _ in each), fmean(y for _, y in each)) for each in seeds.values()]
        for family, seeds in held.items()
    }


def _centred(groups: Mapping[str, Pairs]) -> Pairs:
    """Each pair less its group's mean."""
    found = []
    for pairs in groups.values():
        mean = [fmean(side) for side in zip(*pairs, strict=True)]
        found += [(x - mean[0], y - mean[1]) for x, y in pairs]
    return found


def _between(points: Points) -> Pairs:
    """Of the kinds of ViT that were trained for equally many steps."""
    cells = {cell: pairs for cell, pairs in _by_cell(points).items() if cell.startswith("vit/")}
    cells.pop("vit/plain (equal time)", None)
    return [(fmean(x for x, _ in pairs), fmean(y for _, y in pairs)) for pairs in cells.values()]


def _gains(points: Points) -> dict[str, Pairs]:
    """By family: overlapped (``index``) less plain of the same seed."""
    held = {(cell, seed): (x, y) for cell, seed, x, y in points}
    found: dict[str, Pairs] = {}
    for (cell, seed), (x, y) in held.items():
        family, kind = cell.split("/", 1)
        if kind == "index" and (plain := held.get((f"{family}/plain", seed))):
            found.setdefault(family, []).append((x - plain[0], y - plain[1]))
    return found


def _shown(pairs: Pairs, groups: int) -> str:
    """r and its interval; of each of ``groups`` a mean was taken off."""
    freedom = len(pairs) - groups - 2
    if freedom < 1:
        return "-"
    r = correlation(*zip(*pairs, strict=True))
    z, half = math.atanh(max(min(r, 0.999999), -0.999999)), _Z / math.sqrt(freedom)
    return f"{r:+.2f} [{math.tanh(z - half):+.2f}, {math.tanh(z + half):+.2f}]"

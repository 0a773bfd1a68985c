"""What is in the ledgers as Markdown tables, and a picture of every seed.

    PYTHONPATH=benchmarks python -m evidence.tables [--write docs/evidence.md]

With ``--write`` what stands in that file between ``<!-- table: NAME -->`` and ``<!-- end -->`` is written anew.
Differences are paired by seed (Student's t on the pairs' differences), each beside the interval in which it lies 95
times in 100; p is Holm's over all differences of a table.
"""

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats

from crosshead.compare.designs import correlation
from crosshead.compare.differences import paired
from crosshead.compare.recipes import against_control, holm

from . import diversity
from .ledger import FOLDER, by_cell, read_runs

Values = dict[str, dict[int, float]]


@dataclass(frozen=True)
class Table:
    """Cells of a part whose names match ``only``, and differences of them as (less, cell)."""

    part: str
    pairs: list[tuple[str, str]]
    only: str = ""
    control: str = ""  # with which all shown cells are compared, by Dunnett's test, where it is named

    def lines(self) -> list[str]:
        """Nothing where none of its runs was made."""
        values = by_cell(read_runs(self.part), "accuracy")
        shown = {cell: seeds for cell, seeds in values.items() if re.search(self.only, cell)}
        if not shown:
            return ["*Not run yet.*"]
        apart = against_table(self.control, shown) if self.control else differences_table(values, self.pairs)
        return [*cells_table(shown), "", *apart] if len(apart) > 2 else cells_table(shown)


@dataclass(frozen=True)
class Correlations:
    """Of accuracy with the heads' measures that a part keeps (``diversity``)."""

    part: str

    def lines(self) -> list[str]:
        runs = read_runs(self.part)
        return diversity.lines(runs) if runs else ["*Not run yet.*"]


@dataclass(frozen=True)
class OverPictures:
    """Differences of a part that keeps which pictures each run names rightly: how far they depend on the pictures."""

    part: str
    pairs: list[tuple[str, str]]

    def lines(self) -> list[str]:
        """Of pairs with three seeds or more: a BCa bootstrap over pictures, of each picture's mean over seeds."""
        right: dict[str, dict[int, np.ndarray]] = {}
        for run in read_runs(self.part):
            if "right" in run:
                right.setdefault(run["cell"], {})[run["seed"]] = np.array([*run["right"]], dtype=float)
        lines = ["| cell | less | points | 95 % over pictures |", "| --- | --- | ---: | --- |"]
        for less, cell in self.pairs:
            common = sorted(right.get(less, {}).keys() & right.get(cell, {}).keys())
            if len(common) < 3:
                continue
            apart = 100 * np.mean([right[cell][seed] - right[less][seed] for seed in common], axis=0)
            found = stats.bootstrap([apart], np.mean, rng=0).confidence_interval
            lines.append(f"| {cell} | {less} | {apart.mean():+.2f} | {found.low:+.2f} to {found.high:+.2f} |")
        return lines if len(lines) > 2 else ["*Not run yet.*"]


UPCYCLED = [("plain", f"{kind} x {times}") for times in (1, 5) for kind in ("overlap", "talking")] + [
    ("plain (time of overlap)", "overlap x 1"),
    ("plain", "knocking x 1"),
]


def _thin(heads: int, steps: int, *more: tuple[str, str]) -> list[tuple[str, str]]:
    at = f"{heads}/{steps}"
    controls = [(f"{control}/{at}", f"overlap/{at}") for control in ("plain", "plain (equal parameters)")]
    return [*controls, *more, (f"plain/{at}", f"talking/{at}")]


def _recall(width: int) -> list[tuple[str, str]]:
    return [
        (f"{task}/{width}/{control}/{width // 2}", f"{task}/{width}/overlap:1/{width // 2}")
        for task in ("2/6", "4/3", "2/12", "4/5")
        for control in ("plain", "plain (equal parameters)")
    ]


TABLES: dict[str, Table | Correlations | OverPictures] = {
    "thin_heads": Table(
        "thin_heads",
        [
            *_thin(8, 1800, ("plain/8/2270", "overlap/8/1800")),
            ("plain/8/1800", "plain/8/2270"),
        ],
        "/8/(1800|2270)$",
    ),
    "thin_heads, longer": Table("thin_heads", _thin(8, 5400), "/8/5400$"),
    "thin_heads, sixteen": Table("thin_heads", _thin(16, 1800, ("plain/16/2060", "overlap/16/1800")), "/16/"),
    "thin_heads, four and two": Table("thin_heads", [*_thin(4, 1800), *_thin(2, 1800)], "/[24]/"),
    "bandwidth": Table(
        "bandwidth",
        [
            ("imhsa:4:interaction=false/16", "imhsa:4/16"),
            ("apart (equal parameters)/16", "imhsa:4/16"),
            ("apart (equal time)/16", "imhsa:4/16"),
            ("plain/16", "imhsa:4/16"),
            ("imhsa:4:interaction=false/8", "imhsa:4/8"),
        ],
    ),
    "recall_rule": Table("recall_rule", _recall(16), "^[^/]*/[^/]*/16/"),
    "recall_rule, wider": Table("recall_rule", [*_recall(32), *_recall(64)], "^[^/]*/[^/]*/(32|64)/"),
    "pairs": Table(
        "pairs",
        [
            ("plain/4", "talking/8"),
            ("plain (time of talking)/4", "talking/8"),
            ("plain/4", "overlap:1/8"),
            ("plain (parameters of overlap:1)/4", "overlap:1/8"),
            ("plain (time of overlap:1)/4", "overlap:1/8"),
        ],
    ),
    "pairs_wide": Table(
        "pairs_wide",
        [
            ("plain/12", "talking/16"),
            ("plain (parameters of talking)/12", "talking/16"),
            ("plain (time of talking)/12", "talking/16"),
            ("plain/12", "overlap:1/16"),
            ("plain (parameters of overlap:1)/12", "overlap:1/16"),
            ("plain (time of overlap:1)/12", "overlap:1/16"),
        ],
    ),
    "imhsa_pictures": Table(
        "imhsa_pictures",
        [(f"{kind}/{n}", f"exchange/{n}") for n in (16, 8, 4) for kind in ("apart", "plain")],
    ),
    "imhsa_size": Table(
        "imhsa_size",
        [
            (f"{kind}/{patch}", f"exchange/{patch}")
            for patch in (4, 2)
            for kind in ("apart", "plain", "xca", "agent")
        ],
    ),
    "upcycling": Table("upcycling", UPCYCLED),
    "upcycling, pictures": OverPictures("upcycling", UPCYCLED),
    "mohsa_pictures": Table(
        "mohsa_pictures",
        [
            (f"{family}/{control}", f"{family}/index")
            for family in ("vit", "cait", "swin")
            for control in ("plain", "plain (equal parameters)", "plain (equal time)")
        ],
        "/(plain.*|index)$",
    ),
    "mohsa_pictures, paradigms": Table(
        "mohsa_pictures", [], "^vit/(plain|index.*|reversed.*)$", control="vit/plain"
    ),
    "diversity": Correlations("mohsa_pictures"),
    "pairing": Table(
        "pairing",
        [
            (f"{drawn}/plain", f"{drawn}/{kind}")
            for kind in ("plain (equal parameters)", "talking")
            for drawn in ("by name", "in turn")
        ],
    ),
}


def cells_table(values: Values) -> list[str]:
    lines = ["| cell | every seed, % | mean |", "| --- | --- | ---: |"]
    for cell, seeds in values.items():
        shown = " ".join(f"{100 * value:.5g}" for _, value in sorted(seeds.items()))
        lines.append(f"| {cell} | {shown} | {100 * fmean(seeds.values()):.2f} |")
    return lines


def differences_table(values: Values, pairs: list[tuple[str, str]]) -> list[str]:
    """Those of which both cells have three seeds or more in common."""
    found: list[tuple[str, str, Any, float | None]] = []
    for less, cell in pairs:
        common = sorted(values.get(less, {}).keys() & values.get(cell, {}).keys())
        if len(common) >= 3:
            a, b = ([values[name][seed] for seed in common] for name in (less, cell))
            found.append((less, cell, paired(a, b), correlation(a, b)))
    # Pairs that all differ by the same (by nothing, most often) have no p.
    known = [each.p for _, _, each, _ in found if not math.isnan(each.p)]
    adjusted = iter(holm(known))
    lines = [
        "| cell | less | points | 95 % | pairs | p (Holm) | correlation |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for less, cell, each, r in found:
        alike = math.isnan(each.p)
        interval = "all alike" if alike else f"{100 * each.low:+.2f} to {100 * each.high:+.2f}"
        p, shown = "-" if alike else f"{next(adjusted):.2g}", "-" if r is None else f"{r:+.2f}"
        lines.append(
            f"| {cell} | {less} | {100 * each.difference:+.2f} | {interval} | {each.seeds[0]} | {p} | {shown} |"
        )
    return lines


def against_table(control: str, values: Values) -> list[str]:
    """Cells of three seeds or more less the control: Dunnett's test, or Welch's with Holm's adjustment."""
    known = {cell: list(seeds.values()) for cell, seeds in values.items() if len(seeds) >= 3}
    lines = [
        "| cell | less | points | 95 % | seeds | p | test |",
        "| --- | --- | ---: | --- | ---: | ---: | --- |",
    ]
    if control not in known or len(known) < 2:
        return lines
    for cell, each in against_control(known.pop(control), known).items():
        shown = f"| {cell} | {control} | {100 * each.difference:+.2f} "
        interval = f"{100 * each.low:+.2f} to {100 * each.high:+.2f}"
        p = each.p_adjusted
        lines.append(f"{shown}| {interval} | {len(known[cell])} | {p:.2g} | {each.method} |")
    return lines


def draw(parts: list[str]) -> None:
    """Every seed as a ring, the mean as a bar."""
    from matplotlib.figure import Figure

    shown = [(part, by_cell(read_runs(part), "accuracy")) for part in parts]
    shown = [(part, values) for part, values in shown if values]
    heights = [len(values) for _, values in shown]
    figure = Figure(figsize=(8, 0.24 * sum(heights) + 0.9 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axis, (part, values) in zip(axes, shown, strict=True):
        for place, seeds in enumerate(values.values()):
            points = [100 * value for value in seeds.values()]
            axis.plot(points, [place] * len(points), "o", mfc="none", mec="#3366aa", ms=5)
            axis.plot([fmean(points)], [place], "|", color="#aa3322", ms=13, mew=2)
        axis.set_yticks(range(len(values)), list(values))
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
        axis.set_title(f"{part}: accuracy, %", fontsize=10, loc="left")
        axis.tick_params(labelsize=8)
    figure.savefig(FOLDER / "seeds.png", dpi=110)


def write(file: Path) -> None:
    """The tables of a document from what the ledgers hold now; whatever else stands in it stays."""

    def table(found: re.Match[str]) -> str:
        return "\n".join([found[1], "", *TABLES[found[2]].lines(), "", "<!-- end -->"])

    text = file.read_text(encoding="utf-8")
    file.write_text(
        re.sub(r"(<!-- table: (.+?) -->)\n.*?<!-- end -->", table, text, flags=re.DOTALL), encoding="utf-8"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="a document whose tables are written anew")
    file = parser.parse_args().write
    for name, each in TABLES.items():
        print(f"\n## {name}\n", *each.lines(), sep="\n")
    if file is not None:
        write(file)
    draw(["thin_heads", "bandwidth", "recall_rule", "pairs"])


if __name__ == "__main__":
    main()

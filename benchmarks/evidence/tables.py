"""What is in the ledgers as Markdown tables, and a picture of every seed.

    PYTHONPATH=benchmarks python -m evidence.tables

Differences are paired by seed (Student's t on the pairs' differences), each beside the interval in which it lies 95
times in 100; p is Holm's over all differences of a table.
"""

from statistics import fmean
from typing import Any

from crosshead.compare.designs import correlation
from crosshead.compare.differences import paired
from crosshead.compare.recipes import holm

from .ledger import FOLDER, by_cell, read_runs

Values = dict[str, dict[int, float]]

# Table -> (part, the cells that are shown by their beginning, differences as (less, cell)).
_THIN = "8/1800"
DIFFERENCES: dict[str, list[tuple[str, str]]] = {
    "thin_heads": [
        (f"plain/{_THIN}", f"overlap/{_THIN}"),
        (f"plain (equal parameters)/{_THIN}", f"overlap/{_THIN}"),
        ("plain/8/2270", f"overlap/{_THIN}"),
        (f"plain/{_THIN}", f"talking/{_THIN}"),
        (f"plain/{_THIN}", "plain/8/2270"),
    ],
    "bandwidth": [
        ("imhsa:4:interaction=false/16", "imhsa:4/16"),
        ("apart (equal parameters)/16", "imhsa:4/16"),
        ("apart (equal time)/16", "imhsa:4/16"),
        ("plain/16", "imhsa:4/16"),
        ("imhsa:4:interaction=false/8", "imhsa:4/8"),
    ],
    "recall_rule": [
        (f"{task}/16/{control}/8", f"{task}/16/overlap:1/8")
        for task in ("2/6", "4/3", "2/12", "4/5")
        for control in ("plain", "plain (equal parameters)")
    ],
    "pairs": [
        ("plain/4", "talking/8"),
        ("plain (time of talking)/4", "talking/8"),
        ("plain/4", "overlap:1/8"),
        ("plain (parameters of overlap:1)/4", "overlap:1/8"),
        ("plain (time of overlap:1)/4", "overlap:1/8"),
    ],
    "pairing": [
        ("by name/plain", "by name/plain (equal parameters)"),
        ("in turn/plain", "in turn/plain (equal parameters)"),
    ],
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
    adjusted = holm([each.p for _, _, each, _ in found])
    lines = [
        "| cell | less | points | 95 % | pairs | p (Holm) | correlation |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for (less, cell, each, r), p in zip(found, adjusted, strict=True):
        interval = f"{100 * each.low:+.2f} to {100 * each.high:+.2f}"
        shown = "-" if r is None else f"{r:+.2f}"
        lines.append(
            f"| {cell} | {less} | {100 * each.difference:+.2f} | {interval} | {each.seeds[0]} | {p:.2g} | {shown} |"
        )
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


def main() -> None:
    for part, pairs in DIFFERENCES.items():
        if values := by_cell(read_runs(part), "accuracy"):
            print(f"\n## {part}\n", *cells_table(values), "", *differences_table(values, pairs), sep="\n")
    draw(["thin_heads", "bandwidth", "recall_rule", "pairs"])


if __name__ == "__main__":
    main()

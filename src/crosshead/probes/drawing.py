"""A probe as one picture: accuracy against steps on the left, the seeds of every kind on the right."""

from __future__ import annotations

from pathlib import Path

from .report import ProbeReport

_COLORS = ("#1f6fb4", "#d1495b", "#2a9d68", "#8d5fb3", "#c98a1b", "#5b6770", "#0f8b8d", "#7a4b2a", "#d477b0")


def draw_probe(report: ProbeReport, picture: Path) -> Path:
    """Writes ``picture``, a PNG; wants matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.2 + 0.35 * max(6, len(report.cells))), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"probe: {report.probe}", fontsize=12, fontweight="bold", x=0.01, ha="left")
    curves, dots = figure.subplots(1, 2)
    for place, cell in enumerate(report.cells):
        color, line = _COLORS[place % len(_COLORS)], "--" if cell.control else "-"
        for run in cell.runs:
            curves.plot(*zip(*run.curve, strict=True), color=color, linestyle=line, linewidth=1, alpha=0.8)
            dots.plot(run.accuracy, place, "o", color=color, fillstyle="none" if cell.control else "full")
        dots.plot([cell.mean] * 2, [place - 0.25, place + 0.25], color=color)
    dots.set_yticks(range(len(report.cells)), [cell.label for cell in report.cells], fontsize=8)
    dots.invert_yaxis()
    for axes, along in ((curves, "y"), (dots, "x")):
        (axes.axhline if along == "y" else axes.axvline)(report.chance, color="#999999", linestyle=":")
        getattr(axes, f"set_{along}lim")(0, 1.02)
        getattr(axes, f"{along}axis").set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(True, color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    curves.set_title("accuracy against steps; chance is dotted", fontsize=10, loc="left")
    curves.set_xlabel("step", fontsize=9)
    dots.set_title("at the end: a dot a seed, a bar their mean", fontsize=10, loc="left")
    figure.savefig(picture, format="png")
    return picture

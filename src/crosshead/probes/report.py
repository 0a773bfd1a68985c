"""What a probe came to: every kind of heads with all of its seeds, as data and as a picture."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from .training import Run


@dataclass(frozen=True)
class Cell:
    """One kind of heads at one number of heads, or a control beside it.

    ``control`` is "" for a kind that was asked for, or "parameters" or "time": plain heads with as many parameters as
    (a wider MLP), or trained as long as, the kind ``of``. ``gmacs`` are of one sequence forward, in billions;
    ``step_ms`` is processor time of a training step.
    """

    kind: str
    num_heads: int
    parameters: int
    gmacs: float
    step_ms: float
    steps: int
    runs: list[Run]
    control: str = ""
    of: str = ""

    @property
    def label(self) -> str:
        heads = f"{self.kind}, {self.num_heads} head" + "s" * (self.num_heads > 1)
        return heads + (f", {self.control} of {self.of}" if self.control else "")

    @property
    def mean(self) -> float:
        return fmean(run.accuracy for run in self.runs)

    @property
    def steps_to_mark(self) -> float | None:
        """The median over seeds of the steps to 90 %; None where half of them or more do not arrive."""
        steps = [math.inf if run.steps_to_mark is None else run.steps_to_mark for run in self.runs]
        middle = median(steps)
        return middle if math.isfinite(middle) else None


@dataclass(frozen=True)
class ProbeReport:
    """All cells of one probe; ``rows`` is its table, ``to_json`` all of it."""

    probe: str
    asks: str
    options: dict[str, Any]
    chance: float
    width: int
    depth: int
    batch_size: int
    lr: float
    seeds: list[int]
    cells: list[Cell]
    versions: dict[str, str] = field(default_factory=dict)
    host: str | None = None

    @property
    def gains(self) -> list[Cell]:
        """The kinds whose mean lies above plain heads' of the same number."""
        plain = {
            cell.num_heads: cell.mean for cell in self.cells if cell.kind == "plain" and not cell.control
        }
        return [
            cell
            for cell in self.cells
            if cell.kind != "plain" and cell.num_heads in plain and cell.mean > plain[cell.num_heads]
        ]

    def rows(self) -> list[dict[str, str]]:
        """The table as people read it."""
        return [
            {
                "heads": cell.label,
                "accuracy": f"{cell.mean:.1%}",
                "seeds": " ".join(f"{100 * run.accuracy:.1f}" for run in cell.runs),
                "steps to 90 %": "-" if cell.steps_to_mark is None else f"{cell.steps_to_mark:.0f}",
                "steps": str(cell.steps),
                "parameters": f"{cell.parameters:,}",
                "MMACs": f"{1e3 * cell.gmacs:.3g}",
                "ms a step": f"{cell.step_ms:.1f}",
            }
            for cell in self.cells
        ]

    def words(self) -> str:
        """What may be said of it, in a few sentences."""
        lines = []
        for cell in self.gains:
            others = [c for c in self.cells if (c.kind == "plain" and not c.control) or c.of == cell.label]
            best = max(others, key=lambda other: other.mean)
            above = min(run.accuracy for run in cell.runs) > max(run.accuracy for run in best.runs)
            every = ", every seed of it above every seed of those" if above else ", and their seeds overlap"
            run_on_rank0 = (
                f"{cell.label}: {cell.mean:.1%}, the best plain heads ({best.label}) {best.mean:.1%}"
            )
            lines.append(run_on_rank0 + (every if len(cell.runs) > 1 else "; one seed each"))
        if not lines:
            lines.append("No kind lies above plain heads of the same number.")
        lines.append("A probe tells mechanisms apart. It says nothing of photographs by itself.")
        return "\n".join(lines)

    def to_json(self) -> str:
        cells = [
            {
                **asdict(cell),
                "label": cell.label,
                "mean": cell.mean,
                "steps_to_90": cell.steps_to_mark,
            }
            for cell in self.cells
        ]
        return json.dumps({**asdict(self), "cells": cells}, indent=1, allow_nan=False) + "\n"


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

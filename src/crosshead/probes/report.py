"""What a probe came to: every kind of heads with all of its seeds, as data."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
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

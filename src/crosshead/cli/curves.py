"""Loss and accuracy over a run's epochs, as a picture."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#1f6fb4", "#d1495b", "#2a9d68", "#8d5fb3", "#c98a1b", "#5b6770")


@dataclass
class Curve:
    """One run: ``training`` and ``validation`` hold (epoch, loss, accuracy or None), ``test`` an accuracy."""

    label: str
    training: list[tuple[float, float, float | None]] = field(default_factory=list)
    validation: list[tuple[float, float, float | None]] = field(default_factory=list)
    test: float | None = None


def draw_curves(curves: list[Curve], title: str, path: Path) -> None:
    """Writes the picture: loss at the left, accuracy at the right; training thin, validation bold."""
    figure = Figure(figsize=(11, 4.4), dpi=130, layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    loss, accuracy = figure.subplots(1, 2)
    for curve, color in zip(curves, _COLORS * len(curves), strict=False):
        _draw(loss, curve, color, 1, 1.0)
        _draw(accuracy, curve, color, 2, 100.0)
        if curve.test is not None:
            accuracy.axhline(100 * curve.test, color=color, linewidth=1, linestyle=":")
    loss.set_yscale("log")
    _dress(loss, "loss")
    _dress(accuracy, "accuracy, %")
    handles, labels = loss.get_legend_handles_labels()
    tested = ", ".join(f"{curve.label} {curve.test:.2%}" for curve in curves if curve.test is not None)
    note = f"test accuracy (dotted): {tested}" if tested else None
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=len(labels),
        frameon=False,
        fontsize=9,
        title=note,
        title_fontsize=9,
        alignment="left",
    )
    figure.savefig(path)


def _draw(axes: "Axes", curve: Curve, color: str, column: int, factor: float) -> None:
    for points, what, style in (
        (curve.training, "training", {"linewidth": 1.0, "alpha": 0.55}),
        (curve.validation, "validation", {"linewidth": 2.0}),
    ):
        known = [(point[0], factor * point[column]) for point in points if point[column] is not None]
        if known:
            epochs, values = zip(*known, strict=True)
            marker = "o" if len(known) == 1 else ""
            axes.plot(epochs, values, color=color, marker=marker, label=f"{curve.label} {what}", **style)


def _dress(axes: "Axes", quantity: str) -> None:
    axes.set_title(quantity, fontsize=10, loc="left", color="#333333")
    axes.set_xlabel("epoch", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.grid(True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)

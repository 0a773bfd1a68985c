"""Loss and the metric that selects, over the epochs of one run, or of several, as a picture."""

import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from crosshead.tasks.metrics import METRICS, Metric, metric_named
from crosshead.train.files import replace_file
from crosshead.train.logging.log_files import EVENTS_FILE, METRICS_FILE, read_lines, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES_FILE = "curves.png"
_COLORS = ("#1f6fb4", "#d1495b", "#2a9d68", "#8d5fb3", "#c98a1b", "#5b6770")
_MOST_POINTS = 150  # of a training curve: more is noise, so neighbours are averaged

Point = tuple[float, float | None, float | None]  # epoch, loss, metric


@dataclass
class Curve:
    """What one run's log holds to draw.

    ``metric`` is the one by which checkpoints are selected, or where that is the loss, which is drawn anyway, the
    first of those that the task shows; ``selects`` the former. ``chosen``: the step whose weights were the best, and
    its point.
    """

    metric: Metric = METRICS["accuracy"]
    selects: str = "loss"
    training: list[Point] = field(default_factory=list)
    means: list[Point] = field(default_factory=list)  # of an epoch's steps, at its end
    validation: list[Point] = field(default_factory=list)
    chosen: tuple[int, Point] | None = None
    test: float | None = None


def draw_curves(folder: Path) -> Path:
    """Draw ``curves.png`` from the metrics that ``folder`` holds."""
    return compare_curves({"": folder}, folder.name, folder / CURVES_FILE)


def compare_curves(folders: dict[str, Path], title: str, picture: Path) -> Path:
    """Draw the runs of ``folders``, by label, into ``picture``.

    Training is thin, validation bold, the test dotted; a ring is where the weights were chosen that were tested.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    metrics = [metrics_of(folder) for folder in folders.values()]
    curves = {
        _plain(label): read_curve(folder, metrics[0][0], selects)
        for (label, folder), (_, selects) in zip(folders.items(), metrics, strict=True)
    }
    figure = Figure(figsize=(11, 4.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_plain(title), fontsize=12, fontweight="bold", x=0.01, ha="left")
    loss, judged = figure.subplots(1, 2)
    metric = next(iter(curves.values())).metric
    factor = 100.0 if metric.form == "percent" else 1.0
    for (label, curve), color in zip(curves.items(), _COLORS * len(curves), strict=False):
        _draw(loss, curve, label, color, column=1, factor=1.0)
        _draw(judged, curve, label, color, column=2, factor=factor)
        if curve.test is not None:
            judged.axhline(factor * curve.test, color=color, linewidth=1.2, linestyle=":")
    loss.set_yscale("log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    loss.yaxis.set_minor_formatter(NullFormatter())
    _dress(loss, "loss")
    _dress(judged, metric.label + (", %" if metric.form == "percent" else ""))
    handles, labels = loss.get_legend_handles_labels()
    if handles:
        legend = figure.legend(
            handles,
            labels,
            loc="outside lower left",
            ncols=4,
            frameon=False,
            fontsize=9,
            title=_notes(curves, metric),
        )
        legend.set_alignment("left")
        legend.get_title().set_fontsize(9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    replace_file(picture, buffer.getvalue())
    return picture


def _notes(curves: dict[str, Curve], metric: Metric) -> str | None:
    """What the rings and the dotted lines say."""
    chosen = [
        f"{label} step {curve.chosen[0]} by {metric_named(curve.selects).label}".strip()
        for label, curve in curves.items()
        if curve.chosen is not None
    ]
    tested = [
        f"{label} {metric.text(curve.test)}".strip()
        for label, curve in curves.items()
        if curve.test is not None
    ]
    said = [f"chosen on validation (ring): {', '.join(chosen)}"] if chosen else []
    said += [f"test {metric.label} (dotted): {', '.join(tested)}"] if tested else []
    return "; ".join(said) or None


def read_curve(folder: Path, name: str = "accuracy", selects: str = "loss") -> Curve:
    """The curve of a metric in a run's log; an empty one where nothing was logged yet."""
    curve = Curve(metric_named(name), selects)
    epochs: dict[int, list[Point]] = {}
    for record in read_metrics(folder / METRICS_FILE)[0]:
        if record["kind"] == "step":
            count = (record.get("counts") or record).get(name)
            curve.training.append((record["epoch"], record["loss"], count))
            mean = record.get("epoch_loss", record["loss"])
            epochs.setdefault(math.ceil(record["epoch"]), []).append((record["epoch"], mean, count))
            continue
        metrics = record["metrics"]
        if record["split"] == "validation":
            curve.validation.append((record["epoch"], metrics.get("loss"), metrics.get(name)))
            if record.get("best"):
                curve.chosen = record["step"], curve.validation[-1]
        elif record["split"] == "test":
            curve.test = metrics.get(name)
    curve.means = [_mean(points) for points in epochs.values()]
    return curve


def metrics_of(folder: Path) -> tuple[str, str]:
    """The metric to draw beside the loss, and the one that selects, by the run's last start; runs of 0.1 say none."""
    starts = [record for record in read_lines(folder / EVENTS_FILE) if record.get("kind") == "start"]
    last: dict[str, Any] = next((start for start in reversed(starts) if start.get("shown")), {})
    shown, selects = (last.get("shown") or ["accuracy"])[0], last.get("metric") or "loss"
    return (shown if selects == "loss" else selects), selects


def _mean(points: list[Point]) -> Point:
    """Of an epoch's logged steps: the last one's mean loss of the epoch so far, and the mean of what was counted."""
    counts = [count for _, _, count in points if count is not None]
    return points[-1][0], points[-1][1], fmean(counts) if counts else None


def _plain(text: str) -> str:
    """``text`` as it is, where matplotlib would read a formula between dollar signs."""
    return text.replace("$", r"\$")


def _draw(axes: "Axes", curve: Curve, label: str, color: str, *, column: int, factor: float) -> None:
    training = _thinned(_known(curve.training, column, factor))
    means = _known(curve.means, column, factor)
    validation = _known(curve.validation, column, factor)
    if training:
        axes.plot(
            *zip(*training, strict=True), color=color, linewidth=1, alpha=0.35, label=f"{label} training step"
        )
    if means:
        axes.plot(
            *zip(*means, strict=True),
            color=color,
            linewidth=1.3,
            linestyle="--",
            marker="." if len(means) < 40 else None,
            label=f"{label} training, epoch's mean",
        )
    if validation:
        marker = "o" if len(validation) == 1 else None
        label = f"{label} validation"
        axes.plot(*zip(*validation, strict=True), color=color, linewidth=2, marker=marker, label=label)
    for epoch, value in _known([curve.chosen[1]] if curve.chosen else [], column, factor):
        axes.plot(
            epoch,
            value,
            "o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=color,
            markeredgewidth=1.6,
            zorder=5,
        )


def _known(points: list[Point], column: int, factor: float) -> list[tuple[float, float]]:
    values = ((point[0], point[column]) for point in points)
    return [(epoch, factor * value) for epoch, value in values if value is not None]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    width = -(-len(points) // _MOST_POINTS)
    bins = [points[start : start + width] for start in range(0, len(points), width)] if points else []
    return [(fmean(epoch for epoch, _ in bin), fmean(value for _, value in bin)) for bin in bins]


def _dress(axes: "Axes", quantity: str) -> None:
    axes.set_title(quantity, fontsize=10, loc="left", color="#333333")
    axes.set_xlabel("epoch", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.grid(True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)

"""Loss and accuracy over the run, as a picture."""

import io
from pathlib import Path
from typing import Any

from crosshead.train.manifest import replace_file
from crosshead.train.observers import METRICS_FILE, read_lines

CURVES_FILE = "curves.png"


def draw_curves(folder: Path) -> Path:
    """Draw ``curves.png`` from the metrics that ``folder`` holds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_lines(folder / METRICS_FILE)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    steps = [each for each in records if each["kind"] == "step"]
    _line(loss, [(each["epoch"], each["loss"]) for each in steps], "training")
    for split, marker in (("validation", None), ("test", "o")):
        found = [each for each in records if each["kind"] == "eval" and each["split"] == split]
        _line(loss, [(each["epoch"], each["metrics"].get("loss")) for each in found], split, marker)
        _line(accuracy, [(each["epoch"], each["metrics"].get("accuracy")) for each in found], split, marker)
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        axes.set(xlabel="epoch", ylabel=name)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    replace_file(folder / CURVES_FILE, picture.getvalue())
    return folder / CURVES_FILE


def _line(axes: Any, points: list[tuple[float, float | None]], label: str, marker: str | None = None) -> None:
    known = [(x, y) for x, y in points if y is not None]
    if known:
        axes.plot(*zip(*known, strict=True), label=label, marker=marker)

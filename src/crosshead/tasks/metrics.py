"""What metrics are called, how they are written, and which way is better. Every task's stand in this one table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from crosshead.tasks.coco_numbers import NUMBERS


@dataclass(frozen=True)
class Metric:
    """A number that an evaluation gives, under ``name`` in results and logs.

    ``label`` is what a person reads. ``form`` is how the number is written: a share of 1 in percent, a plain number,
    or a count.
    """

    name: str
    label: str
    higher_is_better: bool = True
    form: Literal["percent", "number", "count"] = "percent"

    def better(self, one: float, other: float) -> bool:
        """Whether ``one`` is strictly better; a number always beats NaN."""
        if math.isnan(one) or math.isnan(other):
            return not math.isnan(one) and math.isnan(other)
        return one > other if self.higher_is_better else one < other

    def selects(self, new: dict[str, float], best: dict[str, float]) -> bool:
        """Whether a validation with the metrics ``new`` takes the place of the ``best`` so far, which is empty where
        there is none. One in which this metric is no number never does.

        Small validation splits tie often: then the lower loss decides, and if that ties too, the later one, which was
        trained longer, at a lower rate.
        """
        value, before = new.get(self.name, math.nan), best.get(self.name, math.nan)
        if not math.isfinite(value):
            return False
        if self.better(value, before) or self.better(before, value):
            return self.better(value, before)
        return not METRICS["loss"].better(best.get("loss", math.nan), new.get("loss", math.nan))

    def text(self, value: float) -> str:
        """``98.33%``, ``0.0712`` or ``359``; ``-`` of what is undefined."""
        if math.isnan(value):
            return "-"
        if self.form == "count":
            return f"{value:.0f}"
        return f"{value:.2%}" if self.form == "percent" else f"{value:.4f}"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("loss", "loss", higher_is_better=False, form="number"),
        Metric("accuracy", "accuracy"),
        Metric("balanced_accuracy", "balanced accuracy"),
        Metric("macro_f1", "macro F1"),
        Metric("top5", "top-5"),
        Metric("miou", "mIoU"),
        Metric("mean_accuracy", "mean accuracy"),
        Metric("pixel_accuracy", "pixel accuracy"),
        Metric("calibration_error", "calibration error", higher_is_better=False),
        Metric("mean_average_precision", "mean average precision"),
        Metric("label_accuracy", "accuracy over labels"),
        Metric("mae", "mean absolute error", higher_is_better=False, form="number"),
        Metric("rmse", "root mean squared error", higher_is_better=False, form="number"),
        Metric("r2", "R²", form="number"),
        *(
            Metric(f"{kind}_{number}".lower(), f"{kind} {number}")
            for kind in ("box", "mask")
            for number in NUMBERS
        ),
        Metric("count", "images", form="count"),
        Metric("skipped", "images left out", higher_is_better=False, form="count"),
    )
}


def selecting(wanted: str | None, known: Sequence[str]) -> Metric:
    """The metric of ``task.select_by`` among those that a task gives; the first of them where it is unset.

    Raises:
        ValueError: the task gives no such metric.
    """
    name = wanted or known[0]
    if name not in known:
        raise ValueError(f"task.select_by is {name!r}; this task and data give {', '.join(known)}")
    return METRICS[name]

"""What metrics are called, how they are written, and which way is better. Every task's stand in this one table."""

from dataclasses import dataclass
from typing import Literal


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
        if one != one or other != other:
            return one == one and other != other
        return one > other if self.higher_is_better else one < other

    def text(self, value: float) -> str:
        """``98.33%``, ``0.0712`` or ``359``."""
        if self.form == "count":
            return f"{value:.0f}"
        return f"{value:.2%}" if self.form == "percent" else f"{value:.4f}"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("loss", "loss", higher_is_better=False, form="number"),
        Metric("accuracy", "accuracy"),
        Metric("top5", "top-5"),
        Metric("miou", "mIoU"),
        Metric("mean_accuracy", "mean accuracy"),
        Metric("pixel_accuracy", "pixel accuracy"),
        Metric("count", "images", form="count"),
        Metric("skipped", "images left out", higher_is_better=False, form="count"),
    )
}

"""A judgement as plain data: sentences, tables, curves and pictures, which a page shows and JSON holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

CHOSEN_HERE = (
    "This run's data have no test split: what is chosen is judged on the very pictures that chose it, and looks better "
    "than it is."
)


@dataclass(frozen=True)
class Chart:
    """``curves`` (label, points) over an axis called ``along``."""

    title: str
    along: str
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]]
    note: str = ""


@dataclass(frozen=True)
class Table:
    title: str
    rows: Sequence[Mapping[str, str]]
    note: str = ""


@dataclass(frozen=True)
class Shown:
    """A picture of the gallery, with what is to be said below it."""

    caption: str
    image: Image.Image


@dataclass
class Report:
    """What was found of a run on ``split``; thresholds and temperature were chosen on ``chosen_on``."""

    title: str
    split: str
    chosen_on: str
    sentences: list[str] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    gallery: list[Shown] = field(default_factory=list)
    gallery_note: str = ""

    def as_data(self) -> dict[str, Any]:
        """All but the pictures."""
        return {
            "title": self.title,
            "split": self.split,
            "chosen_on": self.chosen_on,
            "sentences": self.sentences,
            "tables": [
                {"title": each.title, "rows": [dict(row) for row in each.rows]} for each in self.tables
            ],
            "charts": [
                {"title": each.title, "along": each.along, "curves": dict(each.curves)}
                for each in self.charts
            ],
            "pictures": [each.caption for each in self.gallery],
        }


def thinned(points: Sequence[tuple[float, float]], most: int = 200) -> list[tuple[float, float]]:
    """At most so many of them, evenly, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]

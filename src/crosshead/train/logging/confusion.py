"""Which classes are taken for which, as a picture."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from crosshead.train.files import replace_file

CONFUSION_FILE = "confusion.png"
_MOST_NUMBERS = 24  # classes up to which every cell has its number
_MOST_NAMES = 60
_LONGEST = 24  # letters of a name


def draw_confusion(details: dict[str, Any], picture: Path) -> Path:
    """Draw a result's ``details`` into ``picture``: a row a true class, in shares of its images, numbered in counts; or
    in shares of its pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = np.asarray(details["confusion"], dtype=np.int64)
    images = counts.sum(1, keepdims=True)
    unit = "pixels" if "pixels" in details["classes"][0] else "images"
    shares = counts / np.maximum(images, 1)
    number = len(counts)
    side = float(np.clip(0.42 * number + 2.2, 4.5, 16))
    figure = Figure(figsize=(side + 1, side), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes, fraction=0.045, label=f"share of the class's {unit}")
    if number <= _MOST_NAMES:
        names = [_short(row["class"]) for row in details["classes"]]
        axes.set_xticks(range(number), names, rotation=90 if number > 6 or max(map(len, names)) > 4 else 0)
        rows = [f"{name} ({count:,})" for name, count in zip(names, images[:, 0], strict=True)]
        axes.set_yticks(range(number), rows)
    if number <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.55 else "#1a1a1a"
                text = str(count) if unit == "images" else f"{shares[row, column]:.0%}"
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    axes.set_xlabel("predicted")
    axes.set_ylabel(f"true class ({unit})")
    axes.set_title(f"{details['split']} split", loc="left", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    replace_file(picture, buffer.getvalue())
    return picture


def _short(name: str) -> str:
    plain = name.replace("$", r"\$")  # matplotlib would read a formula between them
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"

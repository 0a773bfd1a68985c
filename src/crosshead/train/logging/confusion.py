"""Which classes are taken for which, as a picture."""

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from crosshead.train.files import replace_file

CONFUSION_FILE = "confusion.png"
_MOST_NUMBERS = 24  # classes up to which every cell has its number
_MOST_NAMES = 60
_LONGEST = 24  # letters of a name
# Of systems that come with letters that matplotlib's own font lacks.
_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR", "WenQuanYi Micro Hei",
    "Droid Sans Fallback", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic",
    "Malgun Gothic", "Arial Unicode MS", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Arabic",
)  # fmt: skip


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
        names = [_short(_written(row["class"])) for row in details["classes"]]
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
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_fontfamily(_families())
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", bbox_inches="tight"
    )  # whole labels, whatever the layout made of them
    replace_file(picture, buffer.getvalue())
    return picture


@cache
def _families() -> list[str]:
    """matplotlib's own font, and those of ``_FONTS`` that are here: what the first lacks the next ones draw."""
    from matplotlib import font_manager

    here = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _FONTS if name in here)]


@cache
def _characters() -> frozenset[int]:
    """What ``_families`` can draw."""
    from matplotlib import font_manager

    files = [font_manager.findfont(name) for name in _families()]
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())


def _written(name: str) -> str:
    """What no font here can draw as an escape, which can be told from others, as empty boxes can't."""
    return "".join(
        letter if ord(letter) in _characters() else letter.encode("ascii", "backslashreplace").decode()
        for letter in name
    )


def _short(name: str) -> str:
    plain = name.replace("$", r"\$")  # matplotlib would read a formula between them
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"

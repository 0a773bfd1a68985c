"""Sheets of maps beside a picture: a row a block, a column a head."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Place = tuple[float, float] | tuple[float, float, float, float]


@dataclass(frozen=True)
class BlockMaps:
    """What a block's heads show of one picture.

    ``maps`` (heads, rows, columns), NaN where a query may not see; ``heads`` their numbers, None of a map that is of no
    head; ``even`` (rows, columns), what each place would have if all that may be seen had the same, where the maps are
    shares of attention; ``signed`` where they are no probabilities.
    """

    label: str
    heads: Sequence[int] | None
    maps: Array
    even: Array | None = None
    signed: bool = False


# What the ends of the colours stand for: each head's own highest, a block's, or this many times an even share.
Scale = Literal["head", "block", "even"]
MOST_TIMES = 16

_DPI = 100
_OPACITY = 0.68  # of a map over the picture
_MARGIN, _GAP, _LINE, _CELL = 14, 8, 14, 168  # pixels
_PICTURE = (240, 1024)  # the least and the most that the picture may be wide


def draw_sheet(
    file: Path,
    picture: NDArray[np.uint8],
    blocks: Sequence[BlockMaps],
    *,
    title: str,
    said: str = "",
    query: Place | None = None,
    overlay: bool = True,
    scale: Scale = "head",
) -> None:
    """Writes a PNG: the picture once, at its own resolution or a whole multiple of it, and the maps beside it.

    Args:
        picture: (height, width, 3), what the model saw.
        title: what is shown, in a line.
        said: what the model says of the picture.
        query: the pixel (x, y) whose attention is shown, marked by a ring in the middle of its patch, or the box (left,
            top, right, bottom).
        overlay: lay the maps over the picture; else they stand alone.
        scale: ``head``, ``block`` or ``even``: see ``Scale``; by powers of two against even attention.

    Raises:
        ValueError: ``even`` of maps that are no shares of attention.
    """
    if scale == "even" and any(block.even is None for block in blocks):
        raise ValueError("these maps are no shares of attention, which could be held against even attention")
    height, width = picture.shape[:2]
    times = max(_PICTURE[0] // width, 1)
    across = min(times * width, _PICTURE[1])
    down = across * height // width
    cell = _CELL, max(_CELL * height // width, 1)
    words = [(line, True) for line in _wrapped([title], across)]
    words += [(line, False) for line in _wrapped([said, *_yardsticks(blocks)], across)]
    left = down + _LINE * (len(words) + 1) + 4 * _LINE * len(_palettes(blocks, scale))
    row_height = cell[1] + 2 * _LINE + _GAP
    columns = max(len(block.maps) for block in blocks)
    size = (
        3 * _MARGIN + across + columns * (cell[0] + _GAP),
        2 * _MARGIN + max(left, row_height * len(blocks)),
    )
    page = _Page(size)
    _draw_left(page, picture, (across, down), words, blocks, scale, query, _OPACITY if overlay else 1.0)
    strongest = max(float(np.nanmax(np.abs(block.maps))) for block in blocks)
    for row, block in enumerate(blocks):
        top = _MARGIN + row * row_height
        page.text(2 * _MARGIN + across, top, block.label, bold=True)
        ends = _ends(block, block.maps, scale)
        for column, values in enumerate(block.maps):
            corner = 2 * _MARGIN + across + column * (cell[0] + _GAP), top + _LINE
            page.text(*corner, _head_title(block, column, strongest))
            ax = page.axes(corner[0], corner[1] + _LINE, *cell)
            own = ends or _ends(block, values, "block")
            assert own is not None  # of a block there are always ends
            _show_map(ax, picture, block, values, own, overlay, scale)
            if query is not None:
                _mark(ax, _centred(query, values.shape, (height, width)))
    page.figure.savefig(file)


class _Page:
    """A figure in pixels from the top left, so that a picture is drawn pixel by pixel."""

    def __init__(self, size: tuple[int, int]) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.size = size
        self.figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI)
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        wide, high = self.size
        ax = self.figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))
        ax.set_axis_off()
        return ax

    def text(self, left: float, top: float, text: str, *, bold: bool = False) -> None:
        self.figure.text(
            left / self.size[0], 1 - top / self.size[1], text.replace("$", r"\$"),
            va="top", fontsize=7.2, fontweight="bold" if bold else "normal",
        )  # fmt: skip


def _draw_left(
    page: _Page,
    picture: NDArray[np.uint8],
    size: tuple[int, int],
    words: Sequence[tuple[str, bool]],
    blocks: Sequence[BlockMaps],
    scale: Scale,
    query: Place | None,
    opacity: float,
) -> None:
    """The picture, what is said of it, and what the colours mean: as they look over a dark picture and a light one."""
    ax = page.axes(_MARGIN, _MARGIN, *size)
    ax.imshow(picture, aspect="auto")  # antialiased where it is made smaller
    if query is not None:
        _mark(ax, _centred(query, blocks[0].maps.shape[1:], picture.shape[:2]))
    top = _MARGIN + size[1] + _LINE // 2
    for i, (line, bold) in enumerate(words):
        page.text(_MARGIN, top + i * _LINE, line, bold=bold)
    top += (len(words) + 1) * _LINE
    for i, (colours, ends) in enumerate(_palettes(blocks, scale).items()):
        bar = page.axes(_MARGIN, top + 4 * _LINE * i, size[0], _LINE)
        extent = (0, 256, 0, 1)  # of both: the maps have the picture under them, so has the bar
        bar.imshow(
            np.linspace(0.9, 0.1, _LINE)[:, None], cmap="gray", vmin=0, vmax=1, aspect="auto", extent=extent
        )
        bar.imshow(np.linspace(0, 1, 256)[None], cmap=colours, aspect="auto", alpha=opacity, extent=extent)
        for place, end, where in zip((0, 0.5, 1), ends, ("left", "center", "right"), strict=True):
            bar.text(place, -0.3, end, transform=bar.transAxes, ha=where, va="top", fontsize=7.2)


def _palettes(blocks: Sequence[BlockMaps], scale: Scale) -> dict[str, tuple[str, str, str]]:
    """The colours that the blocks are drawn in, and what their low end, middle and high end stand for."""
    whose = "block's highest" if scale == "block" else "head's highest"
    if all(block.heads is None for block in blocks):
        whose = "highest"
    found = {}
    if scale == "even" and not all(block.signed for block in blocks):
        found["PuOr_r"] = (f"1/{MOST_TIMES} ×", "even", f"{MOST_TIMES} ×")
    elif not all(block.signed for block in blocks):
        found["inferno"] = ("0", "", whose)
    if any(block.signed for block in blocks):
        high = f"{MOST_TIMES} × even" if scale == "even" else whose
        found["RdBu_r"] = (f"-{MOST_TIMES} × even" if scale == "even" else "below 0", "0", high)
    return found


def _yardsticks(blocks: Sequence[BlockMaps]) -> list[str]:
    """Even attention, told once where it is alike in all blocks."""
    shares = [block.even for block in blocks if block.even is not None and np.isfinite(block.even).any()]
    if not shares:
        return []
    low, high = min(float(np.nanmin(each)) for each in shares), max(float(np.nanmax(each)) for each in shares)
    between = f"{low:.2%}" if high - low < 1e-3 * high else f"{low:.2%} to {high:.2%}, by block"
    return [f"even attention: {between} a patch"]


def _wrapped(texts: Sequence[str], width: int) -> list[str]:
    """Lines that fit ``width`` pixels, at some 5.6 a letter."""
    return [line for text in texts if text for line in textwrap.wrap(text, max(int(width / 5.6), 20))]


def _ends(block: BlockMaps, values: Array, scale: Scale) -> tuple[float, float] | None:
    """What the ends of the colours stand for in maps, None where each has its own."""
    if scale == "head":
        return None
    if scale == "even":
        return (-MOST_TIMES, MOST_TIMES) if block.signed else (-np.log2(MOST_TIMES), np.log2(MOST_TIMES))
    highest = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    highest = highest or 1.0
    return (-highest, highest) if block.signed else (0.0, highest)


def _show_map(
    ax: Any,
    picture: NDArray[np.uint8],
    block: BlockMaps,
    values: Array,
    ends: tuple[float, float],
    overlay: bool,
    scale: Scale,
) -> None:
    height, width = picture.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    outside = np.isnan(values)
    colours = "RdBu_r" if block.signed else "inferno"
    if scale == "even":
        assert block.even is not None
        values = values / block.even
        if not block.signed:
            values, colours = np.log2(np.maximum(values, 1e-9)), "PuOr_r"
    if overlay:
        ax.imshow(picture.mean(-1), cmap="gray", vmin=0, vmax=255, aspect="auto")
    ax.imshow(
        np.ma.masked_invalid(values), cmap=colours, vmin=ends[0], vmax=ends[1], extent=extent, aspect="auto",
        interpolation="nearest", alpha=_OPACITY if overlay else 1.0,
    )  # fmt: skip
    if outside.any():
        _hatch(ax, outside, height, width)
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)


def _hatch(ax: Any, outside: NDArray[np.bool_], height: int, width: int) -> None:
    """Strokes where a window ends: nothing there could be seen, which is not the same as no attention."""
    from matplotlib.patches import Rectangle

    rows, columns = outside.shape
    for row in range(rows):
        for column in np.flatnonzero(outside[row]):
            corner = column * width / columns - 0.5, row * height / rows - 0.5
            cell = Rectangle(corner, width / columns, height / rows, fill=False, linewidth=0, hatch="////")
            cell.set_edgecolor("0.55")
            ax.add_patch(cell)


def _mark(ax: Any, query: Place) -> None:
    """A ring, or the box, that can be seen on any ground."""
    from matplotlib.patches import Rectangle

    for size, colour in ((7.5, "black"), (5.5, "white")):
        if len(query) == 2:
            ax.plot(
                *query,
                "o",
                markersize=size,
                markerfacecolor="none",
                markeredgecolor=colour,
                markeredgewidth=1.1,
            )
            continue
        left, top, right, bottom = query
        thick = 2.6 if colour == "black" else 1.1
        # Pixel 0 reaches from -0.5 to 0.5 on the axes.
        box = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False)
        box.set(edgecolor=colour, linewidth=thick)
        ax.add_patch(box)


def _centred(query: Place, grid: Sequence[int], size: Sequence[int]) -> Place:
    """A pixel -> the middle of the patch that it falls on, which is all that attention knows of its place."""
    if len(query) == 4:
        return query
    rows, columns = grid
    row, column = (
        min(int(query[1] * rows / size[0]), rows - 1),
        min(int(query[0] * columns / size[1]), columns - 1),
    )
    # Pixel 0 reaches from -0.5 to 0.5 on the axes.
    return (column + 0.5) * size[1] / columns - 0.5, (row + 0.5) * size[0] / rows - 0.5


def _head_title(block: BlockMaps, index: int, strongest: float) -> str:
    """What stands above a map. What has no unit is told as a share of the sheet's ``strongest``."""
    values = block.maps[index]
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if block.heads is None:
        return f"up to {100 * high:.3g} % a patch"
    name = f"head {block.heads[index]}: "
    if block.even is None:
        return f"{name}{100 * high / (strongest or 1.0):.0f} % of the strongest"
    span = f"{100 * low:.2g} to {100 * high:.3g} %" if low < 0 else f"{100 * high:.3g} %"
    return f"{name}{span}, {float(np.nanmax(np.abs(values) / block.even)):.1f} × even"

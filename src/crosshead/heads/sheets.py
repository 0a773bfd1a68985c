"""Sheets of maps over a picture: a row a block, a column a head."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Place = tuple[float, float] | tuple[float, float, float, float]


@dataclass(frozen=True)
class BlockMaps:
    """What a block's heads show of one picture.

    ``maps`` (heads, rows, columns), NaN where a query may not see; ``heads`` their numbers; ``signed`` where they are
    no probabilities.
    """

    label: str
    heads: Sequence[int]
    maps: Array
    signed: bool = False


def draw_sheet(
    file: Path,
    picture: NDArray[np.uint8],
    blocks: Sequence[BlockMaps],
    *,
    title: str,
    query: Place | None = None,
    overlay: bool = True,
    shared: bool = False,
) -> None:
    """Writes a PNG.

    Args:
        picture: (height, width, 3), what the model saw.
        title: what is shown, in a line.
        query: the pixel (x, y) whose attention is shown, marked by a ring, or the box (left, top, right, bottom).
        overlay: lay the maps over the picture; else they stand alone.
        shared: one scale for all heads of a block; else each head has its own.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 1 + max(len(block.heads) for block in blocks)
    height, width = picture.shape[:2]
    cell = 1.35
    wide = cell * columns + 0.8
    said = textwrap.wrap(title, int(13.5 * wide)) + textwrap.wrap(_scales(blocks, shared), int(13.5 * wide))
    size = (wide, cell * height / width * len(blocks) + 0.42 * len(blocks) + 0.3 + 0.15 * len(said))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(said), fontsize=8.5, x=0.01, ha="left")
    axes = figure.subplots(len(blocks), columns, squeeze=False)
    for row, block in zip(axes, blocks, strict=True):
        for ax in row:
            ax.set_axis_off()
        _show_picture(row[0], picture, query, f"{block.label}{_even(block.maps)}")
        scale = _scale(block.maps, block.signed) if shared else None
        for ax, head, values in zip(row[1:], block.heads, block.maps, strict=False):
            ax.set_title(_head_title(head, values), fontsize=6.5, pad=2)
            _show_map(ax, picture, values, scale or _scale(values, block.signed), block.signed, overlay)
            if query is not None:
                _mark(ax, query)
    figure.savefig(file)


def _show_picture(ax: Any, picture: NDArray[np.uint8], query: Place | None, label: str) -> None:
    ax.imshow(picture, interpolation="nearest")
    ax.set_title(label, fontsize=6.5, pad=2, loc="left")
    if query is not None:
        _mark(ax, query)


def _show_map(
    ax: Any,
    picture: NDArray[np.uint8],
    values: Array,
    scale: tuple[float, float],
    signed: bool,
    overlay: bool,
) -> None:
    height, width = picture.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    if overlay:
        grey = picture.mean(-1)
        ax.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    colours = "RdBu_r" if signed else "inferno"
    ax.imshow(
        np.ma.masked_invalid(values), cmap=colours, vmin=scale[0], vmax=scale[1], extent=extent,
        interpolation="nearest", alpha=0.68 if overlay else 1.0,
    )  # fmt: skip
    outside = np.isnan(values)
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


def _scale(values: Array, signed: bool) -> tuple[float, float]:
    highest = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    highest = highest or 1.0
    return (-highest, highest) if signed else (0.0, highest)


def _scales(blocks: Sequence[BlockMaps], shared: bool) -> str:
    """What the colours mean."""
    scale = "the heads of a block share a scale" if shared else "each head has a scale of its own"
    return scale + ("; red above 0, blue below" if any(block.signed for block in blocks) else "")


def _even(maps: Array) -> str:
    """What each patch would have if all had the same, where all may be seen: a map near it is one of one colour."""
    return "" if np.isnan(maps).any() else f"\n(even: {1 / maps[0].size:.2g})"


def _head_title(head: int, values: Array) -> str:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    span = f"{low:.2g} to {high:.2g}" if low < 0 else f"max {high:.2g}"
    return f"head {head}  {span}"

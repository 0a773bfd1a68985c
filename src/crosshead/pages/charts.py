"""Drawings for reports, as SVG: dots of runs with means and intervals, and curves."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_COLOURS = 6
_LEFT, _RIGHT = 330, 690  # where the plane lies; labels stand left of it
_ROW = 26


@dataclass(frozen=True)
class Dots:
    """One row: a value a run, and an interval around their mean where there is one."""

    label: str
    values: Sequence[float]
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Curve:
    """``points`` (x, y) of one run. Curves of one ``label`` have one colour."""

    label: str
    points: Sequence[tuple[float, float]]
    thin: bool = False


@dataclass(frozen=True)
class Point:
    """One mark of a plane."""

    label: str
    x: float
    y: float


def draw_dots(rows: Sequence[Dots], text: Callable[[float], str], name: str) -> str:
    """A dot a value, a bar for the mean, a line for the interval; ``text`` writes a value."""
    every = [v for row in rows for v in (*row.values, row.low, row.high) if math.isfinite(v)]
    low, high = _range(every)
    height = _ROW * len(rows) + 40

    def x(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (value - low) / (high - low)

    parts = [_ticks_below(low, high, x, height - 34, text)]
    for place, row in enumerate(rows):
        y, colour = _ROW * place + 20, f"c{place % _COLOURS}"
        parts.append(f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{_short(row.label)}</text>')
        if math.isfinite(row.low) and math.isfinite(row.high):
            parts.append(f'<path class="{colour}" d="M{x(row.low):.1f} {y}H{x(row.high):.1f}"/>')
        known = [value for value in row.values if math.isfinite(value)]
        if known:
            middle = x(sum(known) / len(known))
            parts.append(f'<path class="{colour} mean" d="M{middle:.1f} {y - 9}V{y + 9}"/>')
        for value in known:
            about = html.escape(f"{row.label}: {text(value)}")
            dot = f'<circle class="{colour}" cx="{x(value):.1f}" cy="{y}" r="4">'
            parts.append(f"{dot}<title>{about}</title></circle>")
    return _svg(parts, height, name)


def draw_curves(curves: Sequence[Curve], text: Callable[[float], str], name: str, along: str) -> str:
    """Lines over a common axis that is called ``along``; a legend stands on the left."""
    labels = [*dict.fromkeys(curve.label for curve in curves)]
    height = max(260, 22 * len(labels) + 60)
    xs = _range([x for curve in curves for x, _ in curve.points if math.isfinite(x)], margin=0.02)
    ys = _range([y for curve in curves for _, y in curve.points if math.isfinite(y)])
    bottom = height - 46

    def x(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (value - xs[0]) / (xs[1] - xs[0])

    def y(value: float) -> float:
        return bottom - (bottom - 14) * (value - ys[0]) / (ys[1] - ys[0])

    parts = [_ticks_below(*xs, x, bottom, lambda value: f"{value:.4g}")]
    for value in _ticks(*ys):
        parts.append(f'<path class="axis" d="M{_LEFT} {y(value):.1f}H{_RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{text(value)}</text>')
    parts.append(f'<text x="{_RIGHT}" y="{height - 6}" text-anchor="end">{html.escape(along)}</text>')
    for curve in curves:
        colour = f"c{labels.index(curve.label) % _COLOURS}"
        known = [(x(a), y(b)) for a, b in curve.points if math.isfinite(a) and math.isfinite(b)]
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in known)
        if len(known) == 1:
            (a, b), about = known[0], html.escape(curve.label)
            parts.append(
                f'<circle class="{colour}" cx="{a:.1f}" cy="{b:.1f}" r="5"><title>{about}</title></circle>'
            )
        elif path:
            thin = " thin" if curve.thin else ""
            about = f"<title>{html.escape(curve.label)}</title>"
            parts.append(f'<path class="curve {colour}{thin}" d="M{path}">{about}</path>')
    for place, label in enumerate(labels):
        level = 22 * place + 22
        parts.append(f'<path class="mean c{place % _COLOURS}" d="M4 {level}H24"/>')
        parts.append(f'<text x="30" y="{level + 4}">{_short(label)}</text>')
    return _svg(parts, height, name)


def draw_points(points: Sequence[Point], text: Callable[[float], str], name: str, along: str) -> str:
    """A mark a point, over an axis that is called ``along``; a legend stands on the left."""
    marks = [Curve(point.label, [(point.x, point.y)]) for point in points]
    return draw_curves(marks, text, name, along)


def _svg(parts: list[str], height: int, name: str) -> str:
    return (
        f'<svg viewBox="0 0 {_RIGHT + 30} {height}" role="img" aria-label="{html.escape(name)}">'
        f"{''.join(parts)}</svg>"
    )


def _short(label: str) -> str:
    return html.escape(label if len(label) <= 44 else label[:43] + "…")


def _range(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    apart = (high - low) or abs(high) * 0.1 or 1.0
    return (
        (low - margin * apart, high + margin * apart) if high > low else (low - apart / 2, high + apart / 2)
    )


def _ticks(low: float, high: float) -> list[float]:
    """Four to nine round values."""
    raw = (high - low) / 5
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    first = math.ceil(low / step)
    return [step * i for i in range(first, math.floor(high / step) + 1)]


def _ticks_below(
    low: float, high: float, x: Callable[[float], float], bottom: float, text: Callable[[float], str]
) -> str:
    parts = []
    for value in _ticks(low, high):
        parts.append(f'<path class="axis" d="M{x(value):.1f} 8V{bottom:.1f}"/>')
        parts.append(
            f'<text x="{x(value):.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{text(value)}</text>'
        )
    return "".join(parts)

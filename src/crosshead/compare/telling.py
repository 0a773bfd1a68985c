"""A comparison as plain data: what a page shows, and what ``--json`` writes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from crosshead.compare.comparison import Comparison, rows_of
from crosshead.compare.runs import Group, differing_settings
from crosshead.train.logging.curves import read_curve

_MOST_CLASSES = 40


def as_data(comparison: Comparison) -> dict[str, Any]:
    """All of it; numbers that are undefined are None."""
    groups, metric = comparison.groups, comparison.metric
    intervals = {group.label: comparison.interval(group) for group in groups}
    return {
        "metric": {"name": metric.name, "label": metric.label, "percent": metric.form == "percent"},
        "over": "seed" if comparison.control.folds is None else "fold",
        "looks": comparison.looks,
        "sentences": [each.sentence for each in comparison.against],
        "notes": [*_designs(comparison), *comparison.notes],
        "rows": rows_of(comparison),
        "groups": [
            {
                "label": group.label,
                "seeds": group.seeds,
                "values": comparison.values(group),
                "low": intervals[group.label].low,
                "high": intervals[group.label].high,
                "gmacs": group.runs[0].result.gmacs,
                "parameters": group.runs[0].result.parameters,
                "runs": [str(run.folder) for run in group.runs],
            }
            for group in groups
        ],
        "differences": [
            {
                "label": each.group.label,
                "difference": each.difference.difference,
                "low": _known(each.difference.low),
                "high": _known(each.difference.high),
                "p": _known(each.difference.p),
                "p_adjusted": _known(each.difference.p_adjusted),
                "test": each.difference.method,
                "unpaired_because": each.unpaired,
                "correlation": each.correlation,
            }
            for each in comparison.against
        ],
        "curves": _curves(groups),
        "classes": _classes(groups),
        "heads": head_rows(groups),
        "settings": [
            {"key": key, **{g.label: _short(v) for g, v in zip(groups, values, strict=True)}}
            for key, values in differing_settings(groups).items()
        ],
        "versions": comparison.control.runs[0].versions,
    }


def _designs(comparison: Comparison) -> list[str]:
    """How each difference was judged, and why."""
    notes = []
    for each in comparison.against:
        if each.unpaired is not None:
            notes.append(f"{each.group.label}: not paired, since {each.unpaired}.")
        elif each.difference.method == "paired":
            apart = "" if each.correlation is None else f"; they correlate at {each.correlation:+.2f}"
            notes.append(
                f"{each.group.label}: paired by seed, since data and shared tensors began alike{apart}."
            )
    methods = {each.difference.method for each in comparison.against}
    if len(comparison.against) > 1:
        how = {"Dunnett": "Dunnett's test, one variance for all", "resampled": "Holm's adjustment"}.get(
            next(iter(methods)), "Welch's tests with Holm's adjustment"
        )
        notes.append(
            f"{len(comparison.against)} recipes against {comparison.control.label} are judged together: {how}."
        )
    if comparison.looks > 1:
        notes.append(
            f"{comparison.looks} looks were planned: each claims at .05 / {comparison.looks}, and intervals are of "
            f"{comparison.level:.1%}."
        )
    return notes


def _curves(groups: list[Group]) -> list[dict[str, Any]]:
    """The validation metric of every run, over epochs."""
    found = []
    for group in groups:
        for run in group.runs:
            curve = read_curve(run.folder)
            points = [(epoch, value) for epoch, _, value in curve.validation if value is not None]
            if points:
                found.append({"label": group.label, "metric": curve.metric.label, "points": points})
    return found


def _classes(groups: list[Group]) -> list[dict[str, str]]:
    """Recall of each class: the control's mean over seeds, and the others' differences; the largest first."""
    means = [_recalls(group) for group in groups]
    common = [name for name in means[0] if all(name in each for each in means)]
    apart = {name: [each[name] - means[0][name] for each in means[1:]] for name in common}
    ordered = sorted(common, key=lambda name: -max(map(abs, apart[name])))[:_MOST_CLASSES]
    return [
        {
            "class": name,
            f"recall, {groups[0].label}": f"{means[0][name]:.1%}",
            **{
                group.label: f"{100 * difference:+.1f} points"
                for group, difference in zip(groups[1:], apart[name], strict=True)
            },
        }
        for name in ordered
    ]


def _recalls(group: Group) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for run in group.runs:
        for row in run.result.details.get("classes", []):
            if isinstance(row, dict) and isinstance(row.get("recall"), float):
                found.setdefault(row["class"], []).append(row["recall"])
    return {name: fmean(values) for name, values in found.items() if len(values) == len(group.runs)}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _known(value: float) -> float | None:
    return value if value == value else None


HEADS_FILE = "heads.json"
_MEASURES = {
    "distance_ratio": "distance",
    "entropy": "entropy",
    "map_similarity_mean": "maps alike",
    "effective_heads_map": "effective heads, by maps",
    "cka_mean": "CKA of outputs",
    "effective_heads_cka": "effective heads, by CKA",
}


def head_rows(groups: list[Group]) -> list[dict[str, str]]:
    """A row a measure: each group's mean over heads, layers and seeds, and its least and most seed. Empty where a run
    has no ``heads.json``, or they were made of other images."""
    read = [[_read(run.folder) for run in group.runs] for group in groups]
    known = [each for found in read for each in found if each is not None]
    images = {json.dumps(each.get("images"), sort_keys=True) for each in known}
    if len(known) < sum(map(len, read)) or len(images) > 1:
        return []
    rows = []
    for name, title in _MEASURES.items():
        seeds = [[_mean(each, name) for each in found if each is not None] for found in read]
        if all(math.isfinite(value) for values in seeds for value in values):
            told = {
                group.label: f"{fmean(values):.3g} ({min(values):.3g} to {max(values):.3g})"
                for group, values in zip(groups, seeds, strict=True)
            }
            rows.append({"measure": title, **told})
    return rows


def _read(folder: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads((folder / HEADS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("layers"), list) else None


def _mean(found: Mapping[str, Any], name: str) -> float:
    """Over the layers' means over heads; NaN where a layer lacks the measure."""
    means = []
    for layer in found["layers"]:
        value = layer["values"].get(name)
        values = value if isinstance(value, list) else [value]
        means.append(fmean(values) if values and None not in values else math.nan)
    return fmean(means) if means else math.nan

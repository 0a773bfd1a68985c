"""What ``crosshead heads`` has measured of the runs, where it has of all."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from crosshead.compare.runs import Group

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

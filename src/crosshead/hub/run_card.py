"""What a run says of its model: its data, how it was judged, with other seeds where there are any, and what it cost."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from crosshead.compare.runs import FinishedRun, finished_alike
from crosshead.files import read_text
from crosshead.tasks.metrics import Metric, metric_named
from crosshead.train.inference import LoadedRun
from crosshead.train.logging.log_files import EVENTS_FILE

from .card import Known

_PIPELINES = {"classify": "image-classification", "multilabel": "image-classification"}
# Of a recipe what says where files lie, and how the run was told.
_PRIVATE: Any = {
    "output": True,
    "notes": True,
    "log": True,
    "checkpoint": True,
    "data": {"root": True},
    "model": {"init_from": True},
}
_WEAKEST = 3  # classes
_SPLITS = {
    "train": "for training",
    "validation": "that selected the checkpoint",
    "test": "for the final test",
}


def known_of_run(trained: LoadedRun) -> Known:
    """Of the run whose checkpoint was loaded."""
    assert trained.run is not None
    runs, start = finished_alike(trained.run), _start_of(trained.run)
    recipe = trained.recipe
    sections = {
        "Data": _data(trained, start),
        "Results": _results(trained, runs),
        "Cost": _cost(runs, start),
        "Recipe": _recipe(trained),
    }
    return Known(
        f"trained on {recipe.data.name} with Crosshead",
        sections,
        _limits(trained, runs),
        _metadata(trained, runs),
    )


def _start_of(folder: Path) -> dict[str, Any]:
    """What the run's log began with; empty where there is none."""
    try:
        lines = read_text(folder / EVENTS_FILE).splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("kind") == "start":
            return record
    return {}


def _data(trained: LoadedRun, start: dict[str, Any]) -> str:
    data, info = trained.recipe.data, trained.info
    counts = [
        f"{start[f'{split}_images']:,} {what}"
        for split, what in _SPLITS.items()
        if start.get(f"{split}_images")
    ]
    text = f"`{data.name}`" + (f", pictures: {', '.join(counts)}." if counts else ".")
    if data.validation:
        text += f" {data.validation:.0%} of the training pictures were held out (`data.split_seed={data.split_seed}`)."
    if info.scale is not None:
        text += f" The model's number times {info.scale[1]:g} plus {info.scale[0]:g} is that of the data."
    return text


def _results(trained: LoadedRun, runs: Sequence[FinishedRun]) -> str:
    if not runs:
        return "The run is not finished: nothing has been judged."
    own = runs[0].result
    metrics = [metric_named(name) for name in own.shown]
    lines = [
        f"| split | pictures | {' | '.join(metric.label for metric in metrics)} |",
        "| --- " * (2 + len(metrics)) + "|",
    ]
    for split, values in (("validation", own.validation), ("test", own.test)):
        if values:
            cells = [metric.text(values.get(metric.name, math.nan)) for metric in metrics]
            lines.append(f"| {split} | {values.get('count', 0):.0f} | {' | '.join(cells)} |")
    seed, selecting = runs[0].seed, metric_named(own.metric).label
    text = (
        "\n".join(lines)
        + f"\n\nSeed {seed}; the checkpoint is the best of the run by validation {selecting}."
    )
    if trained.step != own.selected_step:
        text += (
            f" These figures are of step {own.selected_step}, and the weights here of step {trained.step}."
        )
    if len(runs) == 1:
        return text + " One seed: how far another one would be from these figures is not known."
    return text + "\n\n" + _spread(runs, metrics)


def _spread(runs: Sequence[FinishedRun], metrics: Sequence[Metric]) -> str:
    split = "test" if all(run.result.test for run in runs) else "validation"
    lines = [f"The same recipe with {len(runs)} seeds, mean ± standard deviation on {split} pictures:", ""]
    for metric in metrics:
        values = [getattr(run.result, split).get(metric.name, math.nan) for run in runs]
        low, high = metric.text(min(values)), metric.text(max(values))
        mean, deviation = metric.text(fmean(values)), metric.text(stdev(values))
        lines.append(f"- {metric.label}: {mean} ± {deviation}, from {low} to {high}")
    return "\n".join(lines)


def _cost(runs: Sequence[FinishedRun], start: dict[str, Any]) -> str:
    if not runs:
        return ""
    result, versions = runs[0].result, runs[0].versions
    lines = [f"{result.gmacs:.3g} GMACs a picture"]
    lines.append(f"{result.seconds / 60:,.1f} minutes of training and validation")
    lines.append(f"{result.images_per_second:,.0f} pictures a second in training")
    if start:
        lines.append(f"{start['processes']} x {start['device']}, {start['precision']}")
    packages = [
        f"{name} {versions[name]}" for name in ("crosshead", "torch", "timm", "python") if name in versions
    ]
    lines += [", ".join(packages)] if packages else []
    return "\n".join(f"- {line}" for line in lines)


def _recipe(trained: LoadedRun) -> str:
    kept = trained.recipe.model_dump(mode="json", exclude=_PRIVATE)
    text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True).strip()
    return f"Of step {trained.step}; what says where files lie is left out.\n\n```yaml\n{text}\n```"


def _limits(trained: LoadedRun, runs: Sequence[FinishedRun]) -> list[str]:
    classes = trained.info.class_names
    limits = [
        "It was judged on pictures of the source that it learned from; how it does on others is not known."
    ]
    if trained.task.answers == "classes":
        limits.append(
            f"It names one of its {len(classes)} classes for every picture, also where none is in it."
        )
    start = trained.recipe.model.init_from or trained.recipe.model.args.get("pretrained")
    if start:
        limits.append("It started from weights that others trained, on data that this card does not tell of.")
    if runs and runs[0].result.test == {}:
        limits.append(
            "There were no test pictures: its figures are of those that selected it, and rather too good."
        )
    details = runs[0].result.details if runs else {}
    rows = [row for row in details.get("classes", []) if row.get("images") and row.get("recall") is not None]
    if len(rows) > _WEAKEST:
        rows.sort(key=lambda row: row["recall"])
        named = [f"{row['class']} ({row['recall']:.0%} of {row['images']})" for row in rows[:_WEAKEST]]
        limits.append(
            f"Classes that it finds least often in {details['split']} pictures: {', '.join(named)}."
        )
    return limits


def _metadata(trained: LoadedRun, runs: Sequence[FinishedRun]) -> dict[str, Any]:
    from huggingface_hub import EvalResult

    pipeline = _PIPELINES.get(trained.recipe.task.name)
    found: dict[str, Any] = {"pipeline_tag": pipeline} if pipeline else {}
    result = runs[0].result if runs else None
    if result is None or pipeline is None or trained.step != result.selected_step:
        return found
    split, values = ("test", result.test) if result.test else ("validation", result.validation)
    shown = [metric_named(name) for name in result.shown if math.isfinite(values.get(name, math.nan))]
    results = [
        EvalResult(
            task_type=pipeline,
            dataset_type=trained.recipe.data.name,
            dataset_name=trained.recipe.data.name,
            dataset_split=split,
            metric_type=metric.name,
            metric_name=metric.label,
            metric_value=round(values[metric.name], 6),
        )
        for metric in shown
    ]
    return found | {"metrics": [metric.name for metric in shown], "eval_results": results}

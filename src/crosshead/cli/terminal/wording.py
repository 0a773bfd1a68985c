"""How numbers, records and the tables of an evaluation read, on the bar and in the lines alike."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crosshead.tasks.metrics import metric_named
from crosshead.train import EndRecord, EvalRecord, RunInfo


def count(number: int) -> str:
    """12345678 as ``12.3 M``."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def duration(seconds: float) -> str:
    """``8 s``, ``3:07`` (minutes), ``2:03:07`` (hours)."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def beginning(info: RunInfo) -> list[str]:
    """What runs, on what, and where it goes."""
    images = [f"{info.train_images:,} training"]
    images += [f"{info.validation_images:,} validation"] if info.validation_images else []
    images += [f"{info.test_images:,} test"] if info.test_images else []
    where = f"{info.device}, {info.precision}" + (
        f", {info.processes} processes" if info.processes > 1 else ""
    )
    lines = [
        f"{info.name}: {info.model}, {count(info.parameters)} parameters, {info.gmacs:.3g} GMACs",
        f"data {info.dataset}: {', '.join(images)} images",
        f"{info.epochs} epochs of {info.steps_per_epoch} steps on {where}",
        f"run folder {info.folder}",
    ]
    return lines + (
        [f"goes on after step {info.start_step} of {info.total_steps}"] if info.start_step else []
    )


def evaluation(record: EvalRecord, shown: Sequence[str]) -> str:
    """``validation accuracy 98.33%, loss 0.0712``: the metrics of ``shown``, and the loss."""
    averaged = " of the averaged weights" if record.weights == "ema" else ""
    return (
        f"{record.split}{averaged} {figures(record.metrics, (*shown, 'loss'))}{' *' if record.best else ''}"
    )


def figures(metrics: Mapping[str, float | None], names: Iterable[str]) -> str:
    """``accuracy 98.33%, loss 0.0712``: those of ``names`` that there are."""
    known = [(metric_named(name), metrics.get(name)) for name in dict.fromkeys(names)]
    return ", ".join(f"{metric.label} {metric.text(value)}" for metric, value in known if value is not None)


def ending(record: EndRecord) -> list[str]:
    """How it ended, and where to look."""
    result = record.result
    if result is None:
        return [f"failed: {record.message}"]
    lines = [] if result.status == "finished" else [record.message]
    if result.validation:
        names = (result.metric, *result.shown)
        lines.append(f"best: step {result.selected_step}, validation {figures(result.validation, names)}")
    if result.test:
        lines.append(f"test {figures(result.test, result.shown)} ({result.test['count']:.0f} images)")
    lines.append(
        f"{duration(result.seconds)}, {result.images_per_second:,.0f} images/s in training"
        + (f", {result.bad_steps} steps skipped" if result.bad_steps else "")
        + (f", {result.broken_images} broken images" if result.broken_images else "")
    )
    return [*lines, f"run folder {result.folder}"]


_MOST = 40  # classes that are printed all


def class_table(details: dict[str, Any]) -> list[str]:
    """The lines of a table of ``details["classes"]``; of many classes those that are found worst."""
    classes = details.get("classes", [])
    if not classes:
        return []
    titles = list(classes[0])
    judged = [name for name in titles[1:] if any(isinstance(row[name], float) for row in classes)]
    rows = classes
    if len(classes) > _MOST and judged:
        known = [row for row in classes if row[judged[0]] is not None]
        rows = sorted(known, key=lambda row: row[judged[0]])[: _MOST // 2]
    lines = _table(rows)
    if len(rows) < len(classes):
        lines.append(f"the {len(rows)} of {len(classes)} classes with the lowest {judged[0]}; --json has all")
    never = [row["class"] for row in classes if row.get("recall") == 0.0]
    if never:
        shown = ", ".join(never[:8]) + (f" and {len(never) - 8} more" if len(never) > 8 else "")
        lines.append(f"never found: {shown}")
    return lines


def number_table(details: dict[str, Any]) -> list[str]:
    """The lines of a table of ``details["numbers"]``; none where there is none."""
    return _table(details["numbers"]) if details.get("numbers") else []


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """One line a row, under the names of its columns."""
    titles = list(rows[0])
    cells = [titles, *([_cell(row[title]) for title in titles] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells
    ]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value

"""A detector judged: precision against recall, the threshold of each class, its mistakes, and its worst pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from crosshead.data.coco.instances import Objects
from crosshead.data.coco.rle import to_coco
from crosshead.data.datasets.dense import ObjectDataset
from crosshead.judging.choices import Choices, told
from crosshead.judging.judgement import Chart, Report, Shown, Table, thinned
from crosshead.tasks.coco_numbers import Predictions
from crosshead.tasks.detect.coco_evaluation import DetectionOutputs
from crosshead.tasks.detect.matching import confusion, curves, score_thresholds
from crosshead.tasks.detect.results import answer
from crosshead.tasks.drawing import draw_objects

_MOST_CURVES, _MOST_CELLS = 6, 24  # as many as there are colours; as fit on a screen
_APART = 8  # pixels between truth and findings


def choose(outputs: DetectionOutputs) -> Choices:
    """On validation pictures: for each class the lowest score to tell, at which its F1 is the highest."""
    found = _curves(outputs)
    chosen = {
        name: round(curve.best[0], 6)
        for name, curve in zip(outputs.class_names, found, strict=True)
        if curve.best[1] > 0
    }
    return Choices(score_threshold=chosen)


def judge(outputs: DetectionOutputs, chosen: Choices, report: Report) -> None:
    """Into ``report``: what the thresholds come to on these pictures."""
    names, found = outputs.class_names, _curves(outputs)
    thresholds = score_thresholds(chosen.score_threshold or {}, names)
    table = sum(
        confusion(truth, said, thresholds, outputs.max_detections)
        for truth, said in zip(outputs.truth, outputs.found, strict=True)
    )
    assert isinstance(table, np.ndarray)
    rows, scores = [], []
    for k, name in enumerate(names):
        right, there, said = int(table[k, k]), int(table[k].sum()), int(table[:, k].sum())
        f1 = 2 * right / (there + said) if there + said else np.nan
        scores += [f1] if there else []
        rows.append(
            {
                "class": name,
                "threshold": f"{thresholds[k]:.3f}"
                + ("" if name in (chosen.score_threshold or {}) else " (default)"),
                "objects": f"{there:,}",
                "found": f"{right:,}",
                "missed": f"{there - right:,}",
                "wrong": f"{said - right:,}",
                "recall": told("accuracy", right / there if there else np.nan),
                "precision": told("accuracy", right / said if said else np.nan),
                "F1": told("accuracy", f1),
            }
        )
    report.sentences.append(
        f"With each class's threshold, chosen on {report.chosen_on} pictures by F1, {int(np.trace(table)):,} of "
        f"{int(table[:-1].sum()):,} objects are found; {int(table[:-1, -1].sum()):,} are missed, "
        f"{int(table[:-1, :-1].sum() - np.trace(table)):,} taken for another class, and {int(table[-1].sum()):,} "
        f"findings are of nothing. F1, the mean over classes: {told('accuracy', float(np.mean(scores or [np.nan])))}."
    )
    report.tables.append(
        Table("Classes", rows, "Boxes at an IoU of .5; crowds are neither missed nor wrong to find.")
    )
    report.tables.append(_mistakes(table, names))
    report.charts.append(_precision_recall(names, found))


def _curves(outputs: DetectionOutputs) -> Any:
    return curves(outputs.truth, outputs.found, len(outputs.class_names), outputs.max_detections)


def _precision_recall(names: Sequence[str], found: Sequence[Any]) -> Chart:
    ranked = sorted(range(len(names)), key=lambda k: -found[k].objects)
    most = sorted(k for k in ranked[:_MOST_CURVES] if len(found[k].scores) and found[k].objects)
    series = [
        (names[k], thinned(list(zip(found[k].recall.tolist(), found[k].precision.tolist(), strict=True))))
        for k in most
    ]
    note = "Up: precision. One point a different score, not smoothed."
    if len(names) > _MOST_CURVES:
        note += f" The {_MOST_CURVES} classes with the most objects."
    return Chart("Precision against recall", "recall", series, note)


def _mistakes(table: np.ndarray, names: Sequence[str]) -> Table:
    """The table where it is small, else the most frequent mistakes."""
    if len(names) <= _MOST_CELLS:
        columns = [*names, "missed"]
        rows = [
            {"there": name} | {column: f"{int(n):,}" for column, n in zip(columns, row, strict=True)}
            for name, row in zip([*names, "nothing"], table, strict=True)
        ]
        return Table("What was taken for what", rows, "A row what is there, a column what was said.")
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    places = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CELLS]
    pairs = [divmod(int(place), len(names) + 1) for place in places]
    rows = [
        {
            "there": [*names, "nothing"][i],
            "said": [*names, "nothing (missed)"][j],
            "how often": f"{int(wrong[i, j]):,}",
        }
        for i, j in pairs
        if wrong[i, j]
    ]
    return Table("The most frequent mistakes", rows)


def worst(outputs: DetectionOutputs, chosen: Choices, images: ObjectDataset, count: int) -> Sequence[Shown]:
    """The pictures with the most mistakes: truth on the left, on the right what was found by the thresholds."""
    names = outputs.class_names
    thresholds = score_thresholds(chosen.score_threshold or {}, names)
    counts = []
    for truth, said in zip(outputs.truth, outputs.found, strict=True):
        table = confusion(truth, said, thresholds, outputs.max_detections)
        missed, invented = int(table[:-1, -1].sum()), int(table[-1].sum())
        counts.append((missed, invented, int(table[:-1, :-1].sum() - np.trace(table))))
    order = sorted(range(len(counts)), key=lambda i: -sum(counts[i]))
    shown = []
    for i in [row for row in order if sum(counts[row])][:count]:
        missed, invented, mistaken = counts[i]
        place = outputs.index[i]
        picture, _ = images.sample(place)
        told_ = np.asarray(outputs.found[i].scores) >= np.asarray(thresholds)[outputs.found[i].labels]
        found = answer(_kept(outputs.found[i], told_), outputs.truth[i].size, names)
        both = beside(
            draw_objects(picture, truth_as_answer(outputs.truth[i], names)), draw_objects(picture, found)
        )
        caption = (
            f"{images.name(place)}: {missed} missed, {mistaken} taken for another, {invented} of nothing"
        )
        shown.append(Shown(caption, both))
    return shown


def _kept(found: Predictions, which: np.ndarray) -> Predictions:
    masks = None if found.masks is None else [m for m, kept in zip(found.masks, which, strict=True) if kept]
    return Predictions(found.boxes[which], found.labels[which], found.scores[which], masks)


def truth_as_answer(truth: Objects, names: Sequence[str]) -> dict[str, Any]:
    """What is there, as a detector would answer, without scores."""
    objects = []
    for i in range(len(truth)):
        x1, y1, x2, y2 = map(float, truth.boxes[i])
        entry: dict[str, Any] = {
            "class": names[int(truth.labels[i])] + (" (crowd)" if truth.crowd[i] else ""),
            "index": int(truth.labels[i]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        if truth.masks is not None:
            entry["segmentation"] = to_coco(truth.masks[i])
        objects.append(entry)
    return {"size": list(truth.size), "objects": objects}


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures of one height in one."""
    joined = Image.new("RGB", (left.width + _APART + right.width, max(left.height, right.height)), "white")
    joined.paste(left.convert("RGB"), (0, 0))
    joined.paste(right.convert("RGB"), (left.width + _APART, 0))
    return joined

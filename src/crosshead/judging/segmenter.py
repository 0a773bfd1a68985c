"""A segmenter judged: its classes, its scores picture by picture, and its worst pictures."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from crosshead.data.base import IGNORED
from crosshead.data.datasets.dense import SegmentationDataset
from crosshead.judging.detector import beside
from crosshead.judging.judgement import Chart, Report, Shown, Table
from crosshead.tasks.drawing import draw_segments
from crosshead.tasks.metrics import METRICS
from crosshead.tasks.segment.pixel_evaluation import SegmentationOutputs

_TOLD = ("miou", "dice", "boundary_iou", "picture_miou", "pixel_accuracy")


def judge(outputs: SegmentationOutputs, report: Report) -> None:
    """Into ``report``: several scores side by side, and how they are spread over pictures."""
    assert outputs.pictures is not None
    metrics = {name: METRICS.find(name) for name in _TOLD}
    told = {each.label: each.text(each.compute(outputs)) for each in metrics.values()}
    report.sentences.append(", ".join(f"{label} {value}" for label, value in told.items()) + ".")
    table = outputs.confusion.double()
    sizes = table.sum(0) + table.sum(1)
    dice = (2 * table.diagonal() / sizes).tolist()
    borders = outputs.pictures.borders.sum(0).double()
    edges = (borders[0] / borders[1]).tolist()
    rows = [
        {
            "class": name,
            "IoU": metrics["miou"].text(iou),
            "Dice": metrics["dice"].text(one),
            "boundary IoU": metrics["boundary_iou"].text(edge),
            "pixels": f"{int(pixels):,}",
        }
        for name, iou, one, edge, pixels in zip(
            outputs.class_names, outputs.iou.tolist(), dice, edges, table.sum(1).tolist(), strict=True
        )
    ]
    report.tables.append(
        Table(
            "Classes",
            rows,
            "Over the pixels of all pictures; boundary IoU within 2 % of the diagonal of borders.",
        )
    )
    report.charts.append(_spread(outputs))


def _spread(outputs: SegmentationOutputs) -> Chart:
    assert outputs.pictures is not None
    curves = []
    for name, values in (("mIoU", outputs.pictures.miou), ("boundary IoU", outputs.pictures.boundary_iou)):
        ranked = _ranked(values)
        curves.append((name, [((i + 1) / len(ranked), value) for i, value in enumerate(ranked)]))
    note = "Up: the score that this share of the pictures does not exceed."
    return Chart("Scores of single pictures", "share of the pictures", curves, note)


def _ranked(values: Tensor) -> list[float]:
    known: list[float] = values[~values.isnan()].sort().values.tolist()
    return known


def worst(
    outputs: SegmentationOutputs, images: SegmentationDataset, said: dict[int, np.ndarray], count: int
) -> Sequence[Shown]:
    """The pictures of the lowest mIoU among those that ``said`` has maps of: truth on the left, what was said on the
    right."""
    names = dict(enumerate(outputs.class_names))
    shown = []
    for i, miou in worst_pictures(outputs, count):
        picture, truth = images.sample(i)
        there = np.where(truth == IGNORED, len(names), truth).astype(np.uint8)
        told = names | {len(names): "no class"}
        both = beside(
            draw_segments(picture, there, told), draw_segments(picture, said[i].astype(np.uint8), names)
        )
        shown.append(Shown(f"{images.name(i)}: mIoU {METRICS['miou'].text(miou)}", both))
    return shown


def worst_pictures(outputs: SegmentationOutputs, count: int) -> list[tuple[int, float]]:
    """(place, mIoU) of the lowest ones, the lowest first."""
    assert outputs.pictures is not None
    pairs = zip(outputs.pictures.index, outputs.pictures.miou.tolist(), strict=True)
    return sorted((pair for pair in pairs if pair[1] == pair[1]), key=lambda pair: pair[1])[:count]

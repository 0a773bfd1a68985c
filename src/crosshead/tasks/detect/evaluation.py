"""Judging a detector by COCO's twelve numbers, of boxes and of masks."""

import math
from typing import Any

import torch
from torch import Tensor

from crosshead.data.base import Batch
from crosshead.data.coco.objects import Objects
from crosshead.tasks.coco_numbers import MOST, NUMBERS, CocoNumbers, Predictions, coco_numbers
from crosshead.tasks.detect.results import in_own_pixels
from crosshead.tasks.protocol import EvalResult

# A picture's place in the data set, its number in COCO's results, what is there, and what was found.
Row = tuple[int, int, Objects, Predictions]


class DetectEvaluation:
    """Keeps what was found in every picture, masks as run lengths. Rank 0 judges the pictures of all processes at once
    and in the data set's order: the mean of the processes' own precisions would be another number."""

    def __init__(
        self, class_names: tuple[str, ...], kinds: tuple[str, ...], max_detections: int = MOST
    ) -> None:
        self.class_names, self.kinds, self.max_detections = class_names, kinds, max_detections
        self._rows: list[Row] = []

    def update(self, predictions: list[dict[str, Tensor]], batch: Batch) -> None:
        pictures = zip(predictions, batch.targets, batch.index.tolist(), strict=True)
        for found, target, index in pictures:
            size, own = _pair(target["size"]), _pair(target["own"])
            self._rows.append((index, target["id"], target["objects"], in_own_pixels(found, size, own)))

    def sums(self) -> Tensor:
        return torch.zeros(0)

    def rows(self) -> list[Row]:
        return self._rows

    def compute(self, sums: Tensor, rows: list[list[Row]]) -> EvalResult:
        """COCO's numbers as ``box_ap``, ``box_ap50`` ..., ``mask_ap`` ...; NaN where there was nothing to judge, such
        as no object of that size. ``details["numbers"]`` has them by name, ``details["classes"]`` a row a class."""
        pictures = sorted((row for part in rows for row in part), key=lambda row: row[0])
        truth, found = [row[2] for row in pictures], [row[3] for row in pictures]
        judged = {
            kind: coco_numbers(
                truth, found, self.class_names, masks=kind == "mask", max_detections=self.max_detections
            )
            for kind in self.kinds
        }
        metrics = {
            metric_name(kind, number): _or_nan(value)
            for kind, numbers in judged.items()
            for number, value in numbers.overall.items()
        }
        table = [
            {"number": number} | {kind: _or_none(judged[kind].overall[number]) for kind in self.kinds}
            for number in NUMBERS
        ]
        details = {"numbers": table, "classes": self._classes(truth, judged)}
        return EvalResult(metrics | {"count": float(len(pictures))}, details)

    def _classes(self, truth: list[Objects], judged: dict[str, CocoNumbers]) -> list[dict[str, Any]]:
        labels = [label for objects in truth for label in objects.labels[~objects.crowd].tolist()]
        counts = torch.bincount(torch.tensor(labels, dtype=torch.int64), minlength=len(self.class_names))
        return [
            {"class": name}
            | {
                metric_name(kind, number): _or_none(numbers.classes[name][number])
                for kind, numbers in judged.items()
                for number in ("AP", "AP50")
            }
            | {"objects": count}
            for name, count in zip(self.class_names, counts.tolist(), strict=True)
        ]


def metric_name(kind: str, number: str) -> str:
    """``box`` and ``AP50`` -> ``box_ap50``."""
    return f"{kind}_{number.lower()}"


def _pair(size: Tensor) -> tuple[int, int]:
    height, width = size.cpu().tolist()
    return height, width


def _or_nan(value: float) -> float:
    """COCO's -1 says that there is nothing to judge."""
    return math.nan if value == -1 else value


def _or_none(value: float) -> float | None:
    return None if value == -1 else value

"""Judging a detector by COCO's twelve numbers, of boxes and of masks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from crosshead.data.base import Batch
from crosshead.data.coco.instances import Objects
from crosshead.data.datasets.contents import Contents
from crosshead.tasks.coco_numbers import MOST, NUMBERS, CocoNumbers, Predictions, coco_numbers
from crosshead.tasks.detect.results import in_own_pixels, uncut
from crosshead.tasks.metrics import compute_metrics, register_metric
from crosshead.tasks.protocol import EvalResult

# A picture's place in the data set, its number in COCO's results, what is there, and what was found.
Row = tuple[int, int, Objects, Predictions]


_SIZES = {"s": (0, "small"), "m": (1, "medium"), "l": (2, "large")}  # what APs ... ARl are of


@dataclass(frozen=True)
class DetectionOutputs:
    """What there is and what was found in the pictures of a split, in the data set's order; ``index`` are their places
    in it."""

    truth: Sequence[Objects]
    found: Sequence[Predictions]
    class_names: tuple[str, ...]
    max_detections: int = MOST
    index: Sequence[int] = ()

    @cached_property
    def box(self) -> CocoNumbers:
        """COCO's numbers of boxes, each -1 where there is nothing to judge."""
        return self._numbers(masks=False)

    def _numbers(self, *, masks: bool) -> CocoNumbers:
        return coco_numbers(
            self.truth, self.found, self.class_names, masks=masks, max_detections=self.max_detections
        )


@dataclass(frozen=True)
class MaskOutputs(DetectionOutputs):
    """The same with a mask of each object."""

    @cached_property
    def mask(self) -> CocoNumbers:
        """COCO's numbers of masks."""
        return self._numbers(masks=True)


class DetectEvaluation:
    """Keeps what was found in every picture, masks as run lengths. Rank 0 judges the pictures of all processes at once
    and in the data set's order: the mean of the processes' own precisions would be another number."""

    def __init__(
        self,
        class_names: tuple[str, ...],
        kinds: tuple[str, ...],
        max_detections: int = MOST,
        metrics: Sequence[str] | None = None,
        predictions: bool = False,
    ) -> None:
        self.predictions = predictions
        self.class_names, self.kinds, self.max_detections = class_names, kinds, max_detections
        self.metrics = own_metrics(kinds) if metrics is None else metrics
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
        made = MaskOutputs if "mask" in self.kinds else DetectionOutputs
        index = [row[0] for row in pictures]
        outputs = made(truth, found, self.class_names, self.max_detections, index)
        metrics = compute_metrics(self.metrics, outputs)
        judged: dict[str, CocoNumbers] = {kind: getattr(outputs, kind) for kind in self.kinds}
        table = [
            {"number": number} | {kind: _or_none(judged[kind].overall[number]) for kind in self.kinds}
            for number in NUMBERS
        ]
        details = {"numbers": table, "classes": self._classes(truth, judged)}
        said = [uncut(*row) for row in pictures] if self.predictions else []
        return EvalResult(metrics | {"count": float(len(pictures))}, details, said, outputs=outputs)

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


def own_metrics(kinds: Sequence[str]) -> tuple[str, ...]:
    """The names of COCO's numbers of boxes, or of masks and boxes."""
    return tuple(metric_name(kind, number) for kind in kinds for number in NUMBERS)


def _register(kind: str, number: str, of: type) -> None:
    place, size = _SIZES.get(number[-1], (None, ""))

    def lacks(held: Contents) -> str | None:
        there = held.counts.any() if place is None else held.sizes[place]
        return None if there else f"no {f'{size} ' if size else ''}object (crowds are not judged)"

    def compute(outputs: Any) -> float:
        numbers: CocoNumbers = getattr(outputs, kind)
        return _or_nan(numbers.overall[number])

    function: Callable[[Any], float] = compute
    register_metric(metric_name(kind, number), f"{kind} {number}", of=of, lacks=lacks)(function)


for _number in NUMBERS:
    _register("box", _number, DetectionOutputs)
    _register("mask", _number, MaskOutputs)


def _pair(size: Tensor) -> tuple[int, int]:
    height, width = size.cpu().tolist()
    return height, width


def _or_nan(value: float) -> float:
    """COCO's -1 says that there is nothing to judge."""
    return math.nan if value == -1 else value


def _or_none(value: float) -> float | None:
    return None if value == -1 else value

"""COCO's twelve numbers from what was found in each picture; computed by faster-coco-eval.

Tests hold them against pycocotools.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crosshead.data.coco.instances import Objects
from crosshead.libraries import need

# In the order of COCO's summary (https://cocodataset.org/#detection-eval).
NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

MOST = 100  # what COCO judges of a class in a picture: the best so many


@dataclass(frozen=True)
class Predictions:
    """What was found in a picture, in its own pixels: ``boxes`` (n, 4) x1, y1, x2, y2; ``labels`` and ``scores`` (n,).

    ``masks`` are COCO's run lengths, as text, or None of a model that gives none.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: Sequence[dict[str, Any]] | None = None


@dataclass(frozen=True)
class CocoNumbers:
    """``overall`` are the ``NUMBERS`` by name, ``classes`` AP and AP50 of each class; -1 where there is nothing to
    judge, as of a class without objects."""

    overall: dict[str, float]
    classes: dict[str, dict[str, float]]


def coco_numbers(
    truth: Sequence[Objects],
    found: Sequence[Predictions],
    class_names: Sequence[str],
    *,
    masks: bool,
    max_detections: int = MOST,
) -> CocoNumbers:
    """Of boxes, or of ``masks``, over pictures in one order. ``max_detections`` stands for COCO's 100 in all numbers
    but AR1 and AR10; AR100 keeps its name.

    Raises:
        ModuleNotFoundError: faster-coco-eval is not installed.
    """
    evaluation = _evaluated(truth, found, class_names, masks=masks, most=max_detections)
    # (threshold, recall, class), over all areas, with the most detections
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return CocoNumbers(
        dict(zip(NUMBERS, map(float, evaluation.stats[:12]), strict=True)),
        {
            name: {"AP": _mean(precision[:, :, k]), "AP50": _mean(precision[0, :, k])}
            for k, name in enumerate(class_names)
        },
    )


def _mean(precision: np.ndarray) -> float:
    told = precision[precision > -1]
    return float(told.mean()) if told.size else -1.0


def _evaluated(
    truth: Sequence[Objects],
    found: Sequence[Predictions],
    class_names: Sequence[str],
    *,
    masks: bool,
    most: int,
) -> Any:
    library = need("faster_coco_eval")
    # Both libraries tell what they do on the standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        reference = library.COCO(truth_as_coco(truth, class_names, masks=masks))
        results = predictions_as_coco(found, masks=masks)
        # A library asked to load no results refuses.
        detections = reference.loadRes(results) if results else library.COCO(_nothing(truth, class_names))
        evaluation = library.COCOeval_faster(reference, detections, "segm" if masks else "bbox")
        # In rising order, or the library sorts what it takes the last of.
        evaluation.params.maxDets = [min(1, most), min(10, most), most]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def truth_as_coco(truth: Sequence[Objects], class_names: Sequence[str], *, masks: bool) -> dict[str, Any]:
    """COCO's instances file, as data: pictures are numbered from 1 in the order given, classes too."""
    from crosshead.data.coco.rle import to_coco

    annotations: list[dict[str, Any]] = []
    for picture, objects in enumerate(truth, 1):
        for i in range(len(objects)):
            entry = {
                "id": len(annotations) + 1,
                "image_id": picture,
                "category_id": int(objects.labels[i]) + 1,
                "bbox": _wide(objects.boxes[i]),
                "area": float(objects.areas[i]),
                "iscrowd": int(objects.crowd[i]),
            }
            if masks:
                assert objects.masks is not None
                entry["segmentation"] = to_coco(objects.masks[i])
            annotations.append(entry)
    return _nothing(truth, class_names) | {"annotations": annotations}


def predictions_as_coco(found: Sequence[Predictions], *, masks: bool) -> list[dict[str, Any]]:
    """COCO's results, as data, numbered as ``truth_as_coco`` numbers."""
    results = []
    for picture, each in enumerate(found, 1):
        for i in range(len(each.labels)):
            entry: dict[str, Any] = {
                "image_id": picture,
                "category_id": int(each.labels[i]) + 1,
                "score": float(each.scores[i]),
            }
            # One of the two: beside a box, a mask would be sorted into small, medium and large by the box's area.
            if masks:
                assert each.masks is not None
                entry["segmentation"] = each.masks[i]
            else:
                entry["bbox"] = _wide(each.boxes[i])
            results.append(entry)
    return results


def _nothing(truth: Sequence[Objects], class_names: Sequence[str]) -> dict[str, Any]:
    sizes = [objects.size for objects in truth]
    return {
        "info": {},
        "images": [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes, 1)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(class_names, 1)],
        "annotations": [],
    }


def _wide(box: np.ndarray) -> list[float]:
    """x1, y1, x2, y2 -> x, y, width, height."""
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]

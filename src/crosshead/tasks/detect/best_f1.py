"""``box_best_f1``: the mean over classes of the highest F1 that any threshold of scores gives."""

import math

from crosshead.data.datasets.contents import Contents
from crosshead.tasks.detect.coco_evaluation import DetectionOutputs
from crosshead.tasks.detect.matching import curves
from crosshead.tasks.metrics import register_metric


def _lacks(held: Contents) -> str | None:
    return None if held.counts.any() else "no object (crowds are not judged)"


@register_metric("box_best_f1", "box best F1", of=DetectionOutputs, lacks=_lacks)
def box_best_f1(outputs: DetectionOutputs) -> float:
    """F1 of boxes at an IoU of .5 under each class's best threshold, the mean over the classes that there are. The
    thresholds are chosen on the very pictures, so that it is good for selecting, and flatters where it judges:
    ``crosshead judge`` chooses them on validation pictures."""
    found = curves(outputs.truth, outputs.found, len(outputs.class_names), outputs.max_detections)
    known = [curve.best[1] for curve in found if curve.objects]
    return sum(known) / len(known) if known else math.nan

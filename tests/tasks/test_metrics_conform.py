"""What every metric keeps to; one joins by being registered."""

import math

import pytest
import test_no_float64 as examples
import torch

from crosshead.data.base import Batch
from crosshead.tasks import METRICS
from crosshead.tasks.classify.evaluation import ClassifyEvaluation
from crosshead.tasks.detect.coco_evaluation import DetectEvaluation
from crosshead.tasks.multilabel import MultilabelEvaluation
from crosshead.tasks.regress import RegressEvaluation
from crosshead.tasks.segment.pixel_evaluation import SegmentEvaluation

IMAGES = 24


def classes():
    logits = torch.randn(IMAGES, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(IMAGES) % 7
    return "ClassificationOutputs", lambda own: ClassifyEvaluation(tuple("abcdefg"), own), logits, targets


def labels():
    logits = torch.randn(IMAGES, 3, generator=torch.Generator().manual_seed(0))
    targets = (torch.arange(3 * IMAGES).reshape(IMAGES, 3) % 4 == 0).float()
    return "MultilabelOutputs", lambda own: MultilabelEvaluation(tuple("abc"), own), logits, targets


def numbers():
    found = torch.randn(IMAGES, 1, generator=torch.Generator().manual_seed(0))
    return (
        "RegressionOutputs",
        lambda own: RegressEvaluation(3.0, 2.0, own),
        found,
        torch.arange(IMAGES) / 7.0,
    )


def pixels():
    generator = torch.Generator().manual_seed(0)
    said = [torch.randint(3, (5, 7), generator=generator) for _ in range(IMAGES)]
    there = [torch.randint(3, (5, 7), generator=generator) for _ in range(IMAGES)]
    return "SegmentationOutputs", lambda own: SegmentEvaluation(tuple("abc"), own), said, there


WHOLE = {case()[0]: case for case in (classes, labels, numbers, pixels)}
CASES = [(name, kind) for name, metric in METRICS.items() for kind in metric.functions]


def value(name, kind, order):
    """The metric of the images, which come in this order."""
    if kind.__name__ not in WHOLE:
        _, said, there, index = examples.detect()
        evaluation = DetectEvaluation(tuple("ab"), ("mask", "box"), 100, [name])
    else:
        _, make, said, there = WHOLE[kind.__name__]()
        evaluation, index = make([name]), torch.tensor(order)
        take = (
            (lambda all_: all_[index])
            if isinstance(said, torch.Tensor)
            else lambda all_: [all_[i] for i in order]
        )
        said, there = take(said), take(there)
    evaluation.update(said, Batch(None, there, index))
    return evaluation.compute(evaluation.sums(), [evaluation.rows()]).metrics[name]


@pytest.mark.parametrize(("name", "kind"), CASES, ids=lambda each: getattr(each, "__name__", each))
def test_a_metric_is_a_number_whatever_the_order(name, kind):
    metric, found = METRICS[name], value(name, kind, list(range(IMAGES)))
    assert isinstance(found, float) and metric.reads(kind) and metric.label
    assert metric.text(found) and metric.text(math.nan) == "-"
    assert found == value(name, kind, list(reversed(range(IMAGES)))) or math.isnan(found)
    one = value(name, kind, [0])
    assert isinstance(one, float) and not metric.better(one, one)

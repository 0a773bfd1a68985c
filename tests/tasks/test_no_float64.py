"""Evaluation on a device without float64 (Apple's MPS): its figures are those of the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from crosshead.data.base import Batch, DatasetInfo, each_tensor
from crosshead.data.coco.instances import Objects
from crosshead.data.coco.rle import encode
from crosshead.recipe.schema import Recipe
from crosshead.tasks import open_task
from crosshead.tasks.detect.coco_evaluation import DetectEvaluation
from crosshead.tasks.multilabel import MultilabelEvaluation
from crosshead.tasks.regress import RegressEvaluation
from crosshead.tasks.segment.pixel_evaluation import SegmentEvaluation
from no_float64 import Elsewhere


def test_the_device_refuses_as_mps_does():
    there = Elsewhere(torch.randn(3))
    assert (there + 1).device.type == "meta" and (there + 1).cpu().device.type == "cpu"
    with pytest.raises(TypeError, match="float64"):
        there.double()


def test_a_classifier_is_judged_without_float64_on_the_device():
    info = DatasetInfo("toy", tuple("abcdefg"), 3, (0.5,) * 3, (0.5,) * 3)
    task = open_task(Recipe(), info)
    torch.manual_seed(0)
    logits, targets = torch.randn(9, 7), torch.randint(7, (9,))
    here = Batch(torch.zeros(9, 3, 1, 1), targets, torch.arange(9))
    found = []
    for predictions, batch in (
        (logits, here),
        (Elsewhere(logits), replace(here, targets=Elsewhere(targets))),
    ):
        evaluation = task.evaluation()
        evaluation.update(predictions, batch)
        found.append(evaluation.compute(evaluation.sums(), [evaluation.rows()]).metrics)
    assert found[0] == found[1] and found[0]["count"] == 9


def listed(columns):
    return torch.randn(9, columns), torch.arange(9)


def multilabel():
    logits, index = listed(3)
    targets = (torch.arange(27).reshape(9, 3) % 4 == 0).float()
    return lambda: MultilabelEvaluation(tuple("abc")), logits, targets, index


def regress():
    predictions, index = listed(1)
    return lambda: RegressEvaluation(3.0, 2.0), predictions, torch.randn(9), index


def segment():
    said = [torch.randint(3, (5, 7)) for _ in range(2)]
    there = [torch.randint(3, (5, 7)).to(torch.uint8) for _ in range(2)]
    return lambda: SegmentEvaluation(tuple("abc")), said, there, torch.arange(2)


def detect():
    boxes = np.array([[1.0, 2.0, 9.0, 8.0], [10.0, 3.0, 17.0, 15.0]])
    masks = tuple(encode(np.pad(np.ones((4, 4), bool), ((2, 14), (k, 16 - k)))) for k in (1, 10))
    objects = Objects((20, 20), boxes, np.array([0, 1]), np.zeros(2, bool), np.full(2, 16.0), masks)
    found = {
        "boxes": torch.from_numpy(boxes).float() / 2,
        "labels": torch.tensor([0, 1]),
        "scores": torch.tensor([0.9, 0.6]),
        "masks": torch.rand(2, 1, 28, 28),
    }
    target = {"size": torch.tensor([10, 10]), "own": torch.tensor([20, 20]), "objects": objects, "id": 1}
    return lambda: DetectEvaluation(tuple("ab"), ("mask", "box")), [found], [target], torch.arange(1)


@pytest.mark.parametrize("case", [multilabel, regress, segment, detect])
def test_other_tasks_are_judged_without_float64_on_the_device(case):
    torch.manual_seed(0)
    evaluation, predictions, targets, index = case()
    images = torch.zeros(len(index), 3, 1, 1)
    found = []
    for moved in (lambda tensor: tensor, Elsewhere):
        judging = evaluation()
        there = Batch(images, each_tensor(targets, moved), index)
        judging.update(each_tensor(predictions, moved), there)
        found.append(judging.compute(judging.sums(), [judging.rows()]).metrics)
    assert str(found[0]) == str(found[1]) and found[0]["count"] == len(index)

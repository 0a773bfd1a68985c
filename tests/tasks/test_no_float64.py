"""Evaluation on a device without float64 (Apple's MPS): its figures are those of the CPU."""

from dataclasses import replace

import pytest
import torch

from crosshead.data.loading.batch import Batch
from crosshead.data.sets.common import DatasetInfo
from crosshead.recipe.schema import Recipe
from crosshead.tasks import open_task
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

"""Metrics beside the tasks' own, against their formulas and other people's code."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from crosshead.data.base import IGNORED, Batch
from crosshead.tasks.classify.evaluation import ClassifyEvaluation
from crosshead.tasks.segment.pictures import along_border
from crosshead.tasks.segment.pixel_evaluation import SegmentEvaluation

NAMES = ("ground", "sky", "tree")


def classified(logits, targets, *names):
    evaluation = ClassifyEvaluation(tuple("abcd")[: logits.shape[1]], names)
    evaluation.update(logits, Batch(None, targets, torch.arange(len(targets))))
    return evaluation.compute(evaluation.sums(), [evaluation.rows()]).metrics


def test_auc_is_the_chance_that_a_pair_is_in_order():
    torch.manual_seed(0)
    logits, targets = torch.randn(40, 2), torch.arange(40) % 2
    score = (logits[:, 1] - logits[:, 0]).double()
    pairs = score[targets == 1][:, None] - score[targets == 0][None]
    assert classified(logits, targets, "roc_auc")["roc_auc"] == pytest.approx(
        float((pairs > 0).double().mean())
    )
    assert math.isnan(classified(logits, torch.zeros(40, dtype=torch.int64), "roc_auc")["roc_auc"])
    many = classified(torch.randn(40, 4), torch.arange(40) % 3, "roc_auc")["roc_auc"]
    assert 0.2 < many < 0.8, "the class that is not there is left out"


def segmented(said, there, *names, predictions=False):
    evaluation = SegmentEvaluation(NAMES, names, predictions=predictions)
    evaluation.update(said, Batch(None, there, torch.arange(len(there))))
    return evaluation.compute(evaluation.sums(), [evaluation.rows()])


def maps(count=3, size=(20, 30)):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 2, (2, count, 1, 4, 6), generator=generator).float()
    said, there = (torch.nn.functional.interpolate(each, size)[:, 0].long() for each in coarse)
    there[:, :3] = IGNORED
    return list(said), list(there.to(torch.uint8))


def test_dice_is_the_f1_of_pixels():
    from sklearn.metrics import f1_score

    said, there = maps()
    truth, answer = (torch.cat([each.flatten() for each in all_]).numpy() for all_ in (there, said))
    known = truth != IGNORED
    wanted = f1_score(truth[known], answer[known], average="macro")
    assert segmented(said, there, "dice").metrics["dice"] == pytest.approx(wanted)
    assert segmented(said, there, "dice").predictions == []


def test_a_border_is_what_erosion_takes():
    rng = np.random.default_rng(0)
    mask = np.kron(rng.random((5, 6)) > 0.4, np.ones((20, 20))).astype(bool)
    reach = round(0.02 * math.hypot(*mask.shape))
    assert reach == 3
    eroded = binary_erosion(mask, np.ones((3, 3)), iterations=reach)
    assert (along_border(mask) == mask & ~eroded).all()


def test_boundary_iou_falls_where_borders_are_wrong_and_mious_do_not():
    there = torch.zeros(1, 100, 100, dtype=torch.uint8)
    there[:, 10:90, 10:90] = 1
    said = torch.zeros(1, 100, 100, dtype=torch.int64)
    said[:, 12:92, 12:92] = 1
    found = segmented(list(said), list(there), "miou", "boundary_iou", "picture_miou").metrics
    assert found["miou"] > 0.8 and found["boundary_iou"] < 0.5
    assert found["picture_miou"] == pytest.approx(found["miou"]), "of one picture both are the same"
    right = segmented(list(there.long()), list(there), "boundary_iou").metrics
    assert right["boundary_iou"] == 1.0


def test_what_has_no_class_is_neither_a_border_nor_counted():
    there = torch.ones(1, 60, 60, dtype=torch.uint8)
    there[:, 20:40, 20:40] = IGNORED
    said = torch.ones(1, 60, 60, dtype=torch.int64)
    said[:, 20:40, 20:40] = 2
    found = segmented(list(said), list(there), "boundary_iou", "picture_miou", "dice").metrics
    assert (found["boundary_iou"], found["picture_miou"], found["dice"]) == (1.0, 1.0, 1.0)


def test_every_picture_has_its_scores():
    said, there = maps()
    there[1] = said[1].to(torch.uint8)
    there[2][:] = IGNORED
    rows = segmented(said, there, "miou", predictions=True).predictions
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert (rows[1]["miou"], rows[1]["dice"], rows[1]["boundary_iou"], rows[1]["pixel_accuracy"]) == (
        1.0,
    ) * 4
    assert rows[2]["miou"] is None and 0 < rows[0]["miou"] < 1
    known = there[0] != IGNORED
    assert rows[0]["pixel_accuracy"] == pytest.approx(
        float((said[0][known] == there[0][known]).float().mean()), abs=1e-6
    )

"""Findings against objects: as COCO counts them, and into a table of mistakes."""

import numpy as np
import pytest

from crosshead.data.coco.instances import Objects
from crosshead.tasks.coco_numbers import Predictions, coco_numbers
from crosshead.tasks.detect.best_f1 import box_best_f1
from crosshead.tasks.detect.coco_evaluation import DetectionOutputs
from crosshead.tasks.detect.matching import NEITHER, confusion, curves, match

NAMES = ("cat", "dog")


def objects(boxes, labels, crowd=None):
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    crowd = np.zeros(len(labels), bool) if crowd is None else np.array(crowd)
    return Objects(
        (100, 100), boxes, np.array(labels, np.int64), crowd, np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    )


def findings(boxes, labels, scores):
    return Predictions(
        np.array(boxes, np.float64).reshape(-1, 4), np.array(labels, np.int64), np.array(scores, np.float64)
    )


def a_split(pictures=30):
    """Objects moved, doubled, missed and invented, some crowds among them; scores without ties."""
    rng = np.random.default_rng(0)
    truth, found = [], []
    for _ in range(pictures):
        corner, side = rng.uniform(0, 60, (5, 2)), rng.uniform(15, 40, (5, 2))
        boxes = np.concatenate([corner, corner + side], 1)
        truth.append(objects(boxes, rng.integers(0, 2, 5), rng.random(5) < 0.2))
        moved = np.concatenate([boxes[:4] + rng.normal(0, 4, (4, 4)), boxes[:2] + rng.normal(0, 2, (2, 4))])
        said = np.where(rng.random(6) < 0.8, truth[-1].labels[[0, 1, 2, 3, 0, 1]], rng.integers(0, 2, 6))
        found.append(findings(moved, said, rng.random(6)))
    return truth, found


def test_curves_give_cocos_ap50():
    truth, found = a_split()
    official = coco_numbers(truth, found, NAMES, masks=False)
    for name, curve in zip(NAMES, curves(truth, found, 2), strict=True):
        grid = np.linspace(0, 1, 101)
        reached = [curve.precision[curve.recall >= r - 1e-12].max(initial=0.0) for r in grid]
        assert np.mean(reached) == pytest.approx(official.classes[name]["AP50"], abs=1e-6)
    assert 0.1 < official.overall["AP50"] < 0.95


def test_the_best_threshold_is_the_best_of_all():
    truth, found = a_split()
    for k, curve in enumerate(curves(truth, found, 2)):
        threshold, f1 = curve.best

        def at(lowest, k=k):
            lowest = [lowest if k == j else 2.0 for j in (0, 1)]
            table = sum(confusion(t, f, lowest) for t, f in zip(truth, found, strict=True))
            right = table[k, k]
            return 2 * right / (table[k].sum() + table[:, k].sum())

        assert at(threshold) == pytest.approx(f1)
        assert f1 == pytest.approx(max(at(t) for t in np.concatenate([f.scores for f in found])))
    outputs = DetectionOutputs(truth, found, NAMES)
    assert box_best_f1(outputs) == pytest.approx(np.mean([c.best[1] for c in curves(truth, found, 2)]))


def test_what_was_missed_invented_and_mistaken():
    truth = objects([[0, 0, 10, 10], [20, 20, 40, 40], [60, 60, 80, 80]], [0, 0, 1])
    found = findings(
        [[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 40, 40], [90, 90, 99, 99], [60, 60, 80, 80]],
        [0, 0, 1, 1, 1], [0.9, 0.8, 0.7, 0.6, 0.1],
    )  # fmt: skip
    table = confusion(truth, found, [0.5, 0.5])
    assert table.tolist() == [[1, 1, 0], [0, 0, 1], [1, 1, 0]]
    assert confusion(truth, found, [0.5, 0.05]).tolist() == [[1, 1, 0], [0, 1, 0], [1, 1, 0]]


def test_a_crowd_is_neither_missed_nor_wrong_to_find():
    truth = objects([[0, 0, 100, 100]], [0], [True])
    found = findings([[10, 10, 20, 20], [30, 30, 50, 50]], [0, 1], [0.9, 0.8])
    verdict, partner = match(truth, found)
    assert verdict.tolist() == [NEITHER, 0] and partner.tolist() == [-1, -1]
    assert confusion(truth, found, [0.5, 0.5]).tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_nothing_there_or_nothing_found():
    nothing, none = objects([], []), findings([], [], [])
    assert confusion(nothing, none, [0.5, 0.5]).sum() == 0
    empty = curves([nothing], [none], 2)[0]
    assert empty.best == (1.0, 0.0) and len(empty.f1) == 0

"""COCO's twelve numbers: those of pycocotools to 1e-9, nothing to judge, and classes apart."""

import contextlib
import io

import numpy as np
import pytest

from crosshead.data.coco.instances import Objects
from crosshead.data.coco.rle import encode, to_coco
from crosshead.tasks.coco_numbers import (
    NUMBERS,
    Predictions,
    coco_numbers,
    predictions_as_coco,
    truth_as_coco,
)
from detect_files import no_objects

CLASSES = ("cat", "dog", "owl")
SIZE = (220, 250)  # room for large objects, those above 96 x 96 pixels
NOTHING = Predictions(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0), ())


def _mask(box):
    mask = np.zeros(SIZE, bool)
    x1, y1, x2, y2 = (round(float(side)) for side in box)
    mask[y1:y2, x1:x2] = True
    mask[y1 : y1 + 3, x1 : x1 + 3] = False  # a corner is missing: masks and boxes are judged apart
    return mask


def _boxes(draw, count):
    corners = draw.uniform(0, [110, 80], (count, 2))
    sides = draw.choice([20, 60, 120], (count, 1)) * draw.uniform(0.9, 1.15, (count, 2))
    return np.concatenate([corners, np.minimum(corners + sides, [SIZE[1], SIZE[0]])], 1).astype(np.float32)


def cases():
    """Thirty pictures: small to large objects, crowds, pictures without objects, equal scores, misses and repeats."""
    draw = np.random.default_rng(0)
    truth, found = [], []
    for picture in range(30):
        boxes = _boxes(draw, picture % 5)
        masks = [_mask(box) for box in boxes]
        labels = draw.integers(0, 3, len(boxes))
        areas = np.array([mask.sum() for mask in masks], float)
        truth.append(
            Objects(SIZE, boxes, labels, draw.random(len(boxes)) < 0.2, areas, tuple(map(encode, masks)))
        )
        near = np.clip(boxes + draw.normal(0, 2.5, boxes.shape), 0, [SIZE[1], SIZE[0]] * 2)
        guessed = np.concatenate([near, near[:1], _boxes(draw, 2)])
        kinds = np.concatenate([labels, labels[:1], draw.integers(0, 3, 2)])
        kinds[draw.random(len(kinds)) < 0.1] = 0
        scores = np.round(draw.random(len(kinds)), 1)
        found.append(Predictions(guessed, kinds, scores, [to_coco(encode(_mask(box))) for box in guessed]))
    return truth, found


def _by_pycocotools(truth, found, *, masks):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth_as_coco(truth, CLASSES, masks=masks)
        reference.createIndex()
        results = reference.loadRes(predictions_as_coco(found, masks=masks))
        judged = COCOeval(reference, results, "segm" if masks else "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return dict(zip(NUMBERS, judged.stats.tolist(), strict=True))


@pytest.mark.parametrize("masks", [False, True])
def test_all_twelve_are_those_of_pycocotools(masks):
    truth, found = cases()
    want = _by_pycocotools(truth, found, masks=masks)
    assert all(0 < value < 1 for value in want.values()), want  # every one of them says something here
    got = coco_numbers(truth, found, CLASSES, masks=masks).overall
    assert got == pytest.approx(want, abs=1e-9, rel=0)


def test_what_is_found_exactly_is_all_right_and_classes_stand_apart():
    boxes = np.array([[5, 5, 45, 45], [60, 60, 100, 110]], np.float32)
    labels, areas = np.array([0, 2]), np.array([1600.0, 2000.0])
    truth = [Objects(SIZE, boxes, labels, np.zeros(2, bool), areas)]
    assert (
        coco_numbers(truth, [Predictions(boxes, labels, np.ones(2))], CLASSES, masks=False).overall["AP"] == 1
    )
    apart = coco_numbers(
        truth, [Predictions(boxes, np.array([0, 1]), np.ones(2))], CLASSES, masks=False
    ).classes
    assert apart == {
        "cat": {"AP": 1, "AP50": 1},
        "dog": {"AP": -1, "AP50": -1},
        "owl": {"AP": 0, "AP50": 0},
    }


def test_nothing_found_and_nothing_to_find():
    truth, _ = cases()
    assert coco_numbers(truth, [NOTHING] * len(truth), CLASSES, masks=True).overall["AP"] == 0
    none = coco_numbers([no_objects(SIZE, masks=False)], [NOTHING], CLASSES, masks=False)
    assert none.overall == dict.fromkeys(NUMBERS, -1)


def test_masks_are_sorted_by_their_own_area():
    """A thin diagonal, whose box is medium and whose pixels are few: a false one does not count among medium masks.

    pycocotools takes the area of a result with a box from the box, so that it would agree with the mistake.
    """
    line = np.eye(*SIZE, dtype=bool) & (np.arange(SIZE[0]) < 60)[:, None]
    square = _mask([100, 100, 140, 140])
    boxes = np.array([[0, 0, 60, 60], [100, 100, 140, 140]], np.float32)
    areas = np.array([float(line.sum()), float(square.sum())])
    truth = [Objects(SIZE, boxes[1:], np.zeros(1, np.int64), np.zeros(1, bool), areas[1:], [encode(square)])]
    masks = [to_coco(encode(line)), to_coco(encode(square))]
    found = [Predictions(boxes.astype(float), np.zeros(2, np.int64), np.array([0.9, 0.8]), masks)]
    got = coco_numbers(truth, found, CLASSES, masks=True).overall
    assert got["APm"] == pytest.approx(1.0)
    assert got["AP"] < 0.6


def test_more_objects_than_the_limit_are_judged_where_it_is_raised():
    """150 objects, all found exactly: of the usual 100 a third is lost."""
    places = np.stack(np.meshgrid(np.arange(15) * 16.0, np.arange(10) * 16.0), -1).reshape(-1, 2)
    boxes = np.concatenate([places, places + 12], 1)
    labels = np.zeros(150, np.int64)
    truth = [Objects(SIZE, boxes, labels, np.zeros(150, bool), np.full(150, 144.0))]
    found = [Predictions(boxes, labels, np.linspace(1, 0.5, 150))]
    usual = coco_numbers(truth, found, CLASSES, masks=False)
    raised = coco_numbers(truth, found, CLASSES, masks=False, max_detections=150)
    assert usual.overall["AP"] == pytest.approx(2 / 3, abs=0.01)
    assert raised.overall["AP"] == 1 and raised.overall["AR100"] == 1 and raised.classes["cat"]["AP"] == 1
    assert raised.overall["AR10"] == usual.overall["AR10"] == pytest.approx(1 / 15)

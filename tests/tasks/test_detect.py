"""Detection: losses, masks in the pictures' own pixels, shares of an evaluation, windows, answers and drawings."""

import json
from copy import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection.roi_heads import paste_masks_in_image

import crosshead.data.datasets.scenes as scenes
from crosshead.data.base import Batch
from crosshead.data.coco.rle import RLE, decode, encode, encode_within, parse
from crosshead.recipe.schema import Recipe
from crosshead.tasks import METRICS, DetectTask
from crosshead.tasks.coco_numbers import NUMBERS, Predictions
from crosshead.tasks.detect.coco_evaluation import DetectEvaluation
from crosshead.tasks.detect.results import answer, in_own_pixels, masks_of
from crosshead.tasks.windows import detect
from opening import open_data
from tolerances import OUTPUT, assert_close

HEADS = {
    "retinanet": {"norm": True},
    "faster_rcnn": {"box_width": 16, "proposals": [50, 20, 50, 20], "roi_samples": 16},
    "mask_rcnn": {"box_width": 16, "proposals": [50, 20, 50, 20], "roi_samples": 16, "mask_layers": [8]},
}


def detect_recipe(detector="mask_rcnn", **changes):
    small = dict(depths=[1, 1, 1], dims=[8, 12, 16], num_heads=[1, 2, 2], attention_stages=[2], landmarks=2)
    head = {"name": detector, "pyramid": {"width": 16}, **HEADS[detector]}
    values = {
        "model": {"name": "ivit_tiny", "args": small, "detector": head},
        "data": {"name": "scenes", "image_size": 64, "batch_size": 3, "eval_batch_size": 2},
        "augment": {
            "horizontal_flip": 0.0, "crop_scale": None, "randaugment": None, "color_jitter": None, "erasing": 0.0,
            "mixup": 0.0, "cutmix": 0.0,
        },
        "task": {"name": "detect"},
    }  # fmt: skip
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    return Recipe.model_validate_json(json.dumps(values))


@pytest.fixture
def splits(monkeypatch):
    monkeypatch.setattr(scenes, "LENGTHS", {"train": 6, "validation": 5, "test": 3})
    return open_data(detect_recipe().data, seed=0)


def built(detector, splits, **changes):
    task = DetectTask(detect_recipe(detector, **changes), splits.info)
    torch.manual_seed(0)
    return task, task.build_model()


@pytest.mark.parametrize("detector", HEADS)
def test_losses_weigh_by_pictures_and_the_blank_calls_every_part(detector, splits):
    task, model = built(detector, splits)
    batch = task.training_batches(splits.train, seed=0, epoch=0)[0, np.arange(3)]
    torch.manual_seed(1)
    step = task.step(model, batch)
    torch.manual_seed(1)
    sizes = [tuple(target["size"].tolist()) for target in batch.targets]
    losses = model(batch.images, sizes, batch.targets)
    assert tuple(step.losses) == task.losses and task.loss_divisors(batch) is None
    for name, loss in step.losses.items():
        assert_close(loss, losses[name] * 3, OUTPUT[torch.float32])
    sum(task.step(model, task.empty_batch()).losses.values()).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert len(task.predict(model.eval(), task.empty_batch())) == 1


def test_a_mask_in_its_place_is_that_of_the_whole_picture():
    draw = np.random.default_rng(0)
    for size in ((5, 7), (1, 4), (6, 1), (3, 3)):
        for _ in range(60):
            top, left = (int(draw.integers(0, side)) for side in size)
            high, wide = (
                int(draw.integers(0, side - at + 1)) for side, at in zip(size, (top, left), strict=True)
            )
            piece = draw.random((high, wide)) < draw.choice([0.3, 0.8, 1.0])
            mask = np.zeros(size, bool)
            mask[top : top + high, left : left + wide] = piece
            got = encode_within(piece, (top, left), size)
            assert got.counts.tolist() == encode(mask).counts.tolist() and got.size == size


def test_masks_are_pasted_as_torchvision_does():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(7, 1, 28, 28, generator=generator)
    boxes = torch.tensor(
        [[3.2, 4.1, 20.7, 30.9], [0, 0, 50, 40], [45, 35, 50, 40], [7, 7, 7, 7], [0, 12, 2, 13], [10, 0, 11, 40],
         [49.5, 39.5, 50, 40]]
    )  # fmt: skip
    want = (paste_masks_in_image(probabilities, boxes, (40, 50), padding=1)[:, 0] >= 0.5).numpy()
    got = np.stack([decode(mask) for mask in masks_of(probabilities, boxes, (40, 50))])
    assert np.array_equal(got, want) and want.any((1, 2)).sum() >= 5


def test_what_is_found_comes_back_into_the_pictures_own_pixels():
    boxes = torch.tensor([[10.0, 20, 30, 40], [0, 0, 100, 50]])
    seen = {"boxes": boxes, "labels": torch.tensor([1, 0]), "scores": torch.tensor([0.4, 0.3])}
    seen["masks"] = torch.ones(2, 1, 28, 28)
    found = in_own_pixels(seen, (50, 100), (99, 201))
    assert np.allclose(found.boxes, [[20.1, 39.6, 60.3, 79.2], [0, 0, 201, 99]], atol=1e-5)
    assert found.boxes.max() <= 201 and parse(found.masks[1], (99, 201)).area > 0.98 * 99 * 201
    entry = answer(found, (99, 201), ("cat", "dog"))["objects"][0]
    assert (
        entry["class"] == "dog" and entry["bbox"] == [20.1, 39.6, 40.2, 39.6] and "category_id" not in entry
    )
    numbered = answer(found, (99, 201), ("cat", "dog"), (17, 90))["objects"]
    assert [entry["category_id"] for entry in numbered] == [90, 17]


@pytest.mark.parametrize("detector", ["mask_rcnn", "retinanet"])
def test_any_shares_of_the_pictures_give_the_same_numbers(detector, splits):
    task, model = built(detector, splits)
    model.eval()
    pictures = splits.test.subset(np.arange(3)), splits.validation
    batches = [task.evaluation_batches(each)[0, np.arange(len(each))] for each in pictures]
    near = []
    for batch in batches:  # what is there, a little off, and some that is not: numbers between 0 and 1
        for number, target in enumerate(batch.targets):
            objects = target["objects"]
            boxes = torch.from_numpy(objects.boxes) + 1.5 * torch.randn(
                len(objects), 4, generator=torch.Generator().manual_seed(number)
            )
            found = {
                "boxes": torch.cat([boxes, torch.tensor([[5.0, 5, 25, 25]])]),
                "labels": torch.from_numpy(np.append(objects.labels, 3)),
                "scores": torch.linspace(0.9, 0.2, len(objects) + 1),
            }
            near.append(found | {"masks": torch.ones(len(objects) + 1, 1, 28, 28)})
    rows = [(batches[k], i) for k in (0, 1) for i in range(len(batches[k]))]

    def judged(*shares):
        parts = []
        for share in shares:
            evaluation = task.evaluation()
            for place in share:
                batch, i = rows[place]
                one = Batch(batch.images[i : i + 1], [batch.targets[i]], torch.tensor([place]))
                evaluation.update([near[place]] if task.masked else [_unmasked(near[place])], one)
            parts.append(evaluation.rows())
        return task.evaluation().compute(evaluation.sums(), parts)

    whole = judged(range(8))
    assert 0 < whole.metrics[task.primary.name] < 1 and whole.metrics["count"] == 8
    assert whole.metrics.keys() - {"count"} == {
        f"{kind}_{number.lower()}" for kind in task.kinds for number in NUMBERS
    }
    assert whole.metrics.keys() <= METRICS.keys() and set(task.shown) <= whole.metrics.keys()
    assert whole.metrics["box_apl"] != whole.metrics["box_apl"]  # no large object: nothing to judge
    for shares in (
        [(7, 3, 1), (0, 2, 4, 5, 6)],
        [(6,), (5, 4, 3, 2, 1), (0, 7)],
        [(), (1, 0), (2, 7, 6), (3,), (5, 4)],
    ):
        other = judged(*shares)
        assert str(other) == str(whole)


def _unmasked(found):
    return {name: value for name, value in found.items() if name != "masks"}


def test_a_row_a_class_and_nothing_found():
    def objects(label, **more):
        boxes = np.array([[2, 2, 12, 12]], np.float32)
        area = np.array([100.0])
        return scenes.Objects((20, 20), boxes, np.array([label]), np.array([False]), area, **more)

    evaluation = DetectEvaluation(("cat", "dog", "owl"), ("box",))
    none = Predictions(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
    right = Predictions(np.array([[2.0, 2, 12, 12]]), np.array([1]), np.array([0.7]))
    judged = evaluation.compute(evaluation.sums(), [[(0, 1, objects(1), right), (1, 2, objects(0), none)]])
    assert judged.details["classes"] == [
        {"class": "cat", "box_ap": 0.0, "box_ap50": 0.0, "objects": 1},
        {"class": "dog", "box_ap": 1.0, "box_ap50": 1.0, "objects": 1},
        {"class": "owl", "box_ap": None, "box_ap50": None, "objects": 0},
    ]
    assert judged.metrics["box_ap"] == 0.5
    assert judged.details["numbers"][0] == {"number": "AP", "box": 0.5}
    json.dumps(judged.details, allow_nan=False)


class Squares:
    """Finds what is not 0: a box around each value, as its class; the more it sees of it the surer."""

    nms_threshold, max_detections = 0.5, 100

    def __init__(self, areas):
        self.areas, self.largest = areas, 0

    def __call__(self, images, sizes):
        (image,), ((height, width),) = images, sizes
        self.largest = max(self.largest, *image.shape[-2:])
        boxes, labels, scores = [], [], []
        for value in image[0, :height, :width].unique().tolist():
            if value:
                rows, columns = (image[0] == value).nonzero(as_tuple=True)
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                labels.append(int(value))
                scores.append(len(rows) / self.areas[value])
        found = {"boxes": torch.tensor(boxes).float().reshape(-1, 4), "labels": torch.tensor(labels).long()}
        return [found | {"scores": torch.tensor(scores).float()}]


def test_windows_find_each_object_once_and_whole():
    picture = torch.zeros(1, 150, 200)
    places = {
        1: (3, 4, 20, 9),
        2: (30, 50, 60, 66),
        3: (80, 100, 96, 116),
        4: (140, 185, 150, 200),
        5: (70, 20, 74, 180),
    }
    for value, (top, left, bottom, right) in places.items():
        picture[0, top:bottom, left:right] = value
    areas = {float(v): (b - t) * (r - x) for v, (t, x, b, r) in places.items()}
    whole, parts = Squares(areas), Squares(areas)
    (want,) = detect(whole, picture[None], [(150, 200)], None)
    (got,) = detect(parts, picture[None], [(150, 200)], 60)
    assert whole.largest == 200 and parts.largest == 64
    for value in range(1, 5):
        (mine,) = (got["boxes"][got["labels"] == value]).tolist()
        assert mine == want["boxes"][value - 1].tolist()
    assert (got["labels"] == 5).sum() > 1  # wider than any window: told in pieces, not dropped
    nothing = detect(parts, torch.zeros(1, 1, 150, 200), [(150, 200)], 60)[0]
    assert len(nothing["boxes"]) == 0


class Crowded:
    """Finds 25 objects, well apart, in every window of 128 pixels."""

    nms_threshold, max_detections = 0.5, 25

    def __call__(self, images, sizes):
        places = torch.arange(6, 120, 24.0)
        y, x = torch.meshgrid(places, places, indexing="ij")
        boxes = torch.stack([x, y, x + 10, y + 10], -1).reshape(-1, 4)
        labels = torch.zeros(25, dtype=torch.int64)
        return [{"boxes": boxes, "scores": torch.linspace(0.9, 0.5, 25), "labels": labels} for _ in sizes]


def test_how_many_objects_a_window_may_have_limits_no_picture():
    counts = [
        len(detect(Crowded(), torch.zeros(1, 1, side, side), [(side, side)], 128)[0]["boxes"])
        for side in (128, 256, 512)
    ]
    assert counts[0] == 25 and counts[1] > 90 and counts[2] > 400


def test_windows_are_cut_from_the_picture_at_its_own_size(splits):
    """Nothing is shrunk to ``data.eval_resize`` before; a picture that a window holds goes as without one."""
    own = lambda **task: built("retinanet", splits, data={"eval_resize": 48}, task=task)[0]  # noqa: E731
    large, small = (Image.new("RGB", size) for size in ((300, 200), (60, 50)))
    shape = lambda task, picture: tuple(task.preprocess(picture)[0].shape[-2:])  # noqa: E731
    assert shape(own(), large) == (48, 72)
    assert shape(own(window=64), large) == (200, 300)
    assert shape(own(window=64, window_scale=0.5), large) == (100, 150)
    assert shape(own(window=64), small) == shape(own(), small) == (48, 58)
    task = own(window=60)
    batch = task.evaluation_batches(splits.validation)[0, np.array([0])]
    assert batch.targets[0]["size"].tolist() == batch.targets[0]["own"].tolist()


def test_answers_lie_in_the_pictures_own_pixels_and_are_drawn_on_it(splits):
    task, model = built("mask_rcnn", splits, data={"eval_resize": 48}, task={"score_threshold": 0.0})
    model.eval()
    small, large = (splits.test.load(0).resize(size) for size in ((90, 70), (131, 200)))
    answers = task.predictions_of(model, [task.preprocess(picture) for picture in (small, large)], top=9)
    alone = task.predictions_of(model, [task.preprocess(large)], top=9)[0]
    assert [entry["class"] for entry in alone["objects"]] == [e["class"] for e in answers[1]["objects"]]
    for picture, found in zip((small, large), answers, strict=True):
        assert found["size"] == [picture.height, picture.width] and len(found["objects"]) == 9
        scores = [entry["score"] for entry in found["objects"]]
        assert scores == sorted(scores, reverse=True)
        for entry in found["objects"]:
            x, y, wide, high = entry["bbox"]
            assert (
                x >= 0 and y >= 0 and x + wide <= picture.width + 1e-3 and y + high <= picture.height + 1e-3
            )
            assert isinstance(parse(entry["segmentation"], tuple(found["size"])), RLE)
        json.dumps(found, allow_nan=False)
        drawn = task.draw(picture, found)["drawn"]
        assert drawn.size == picture.size and drawn.tobytes() != picture.convert("RGB").tobytes()
        assert len(task.format_lines(found)) == 9
    certain = DetectTask(detect_recipe(task={"score_threshold": 1.0}), splits.info)
    (nothing,) = certain.predictions_of(model, [certain.preprocess(small)])
    assert nothing["objects"] == [] and certain.format_lines(nothing) == ["nothing that scores 1 or more"]
    assert certain.draw(small, nothing)["drawn"].tobytes() == small.convert("RGB").tobytes()
    grey = Image.new("L", (40, 30))
    assert task.draw(grey, task.predictions_of(model, [task.preprocess(grey)])[0])["drawn"].mode == "RGB"


def test_what_does_not_fit_together_is_refused(splits):
    def refused(recipe):
        with pytest.raises(ValueError) as caught:
            DetectTask(recipe, splits.info).training_batches(splits.train, seed=0, epoch=0)
        return str(caught.value)

    assert "model.detector is not set" in refused(detect_recipe(model={"detector": None}))
    assert "augment.cutmix: not for pictures with boxes" in refused(detect_recipe(augment={"cutmix": 0.2}))
    assert "go together" in refused(detect_recipe(task={"window": 64}, train={"parallel": "shards"}))
    assert "no class 'x'" in refused(detect_recipe(task={"class_weights": {"x": 2.0}}))
    assert "gives mask_ap" not in refused(detect_recipe("retinanet", task={"select_by": "mask_ap"}))
    with pytest.raises(ValueError, match=r"model\.segmenter and model\.detector are both set"):
        detect_recipe(model={"segmenter": {"name": "linear"}})
    digits = open_data(detect_recipe(data={"name": "digits"}).data, seed=0).train
    with pytest.raises(ValueError, match="have no boxes"):
        DetectTask(detect_recipe(), splits.info).evaluation_batches(digits)

    (unmasked := copy(splits.train)).masked = False
    with pytest.raises(ValueError, match="have no masks"):
        DetectTask(detect_recipe(), splits.info).evaluation_batches(unmasked)

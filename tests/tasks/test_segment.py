"""Segmentation: losses and metrics against their formulas, windows against the whole, answers against the maps."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from crosshead.data.base import Batch, DatasetInfo
from crosshead.models.segmenters import full_size
from crosshead.recipe.schema import Recipe
from crosshead.tasks import SegmentTask
from crosshead.tasks.drawing import class_map
from crosshead.tasks.segment.pixel_evaluation import SegmentEvaluation
from crosshead.tasks.windows import classes_at, starts, windowed_logits
from map_files import map_folder
from opening import open_data
from tolerances import OUTPUT, assert_close

INFO = DatasetInfo("toy", ("ground", "sky", "tree"), 3, (0.5,) * 3, (0.5,) * 3)


def segment_recipe(root="", *, segmenter="semantic_fpn", **changes):
    options = {"width": 32, "pyramid": {"width": 16}} if segmenter == "semantic_fpn" else {"width": 16}
    options |= {"auxiliary_width": 8} if segmenter == "upernet" else {}
    small = dict(
        depths=[1, 1, 1], dims=[16, 24, 32], num_heads=[2, 3, 4], attention_stages=[1, 2], landmarks=3
    )
    values = {
        "model": {"name": "ivit_tiny", "args": small, "segmenter": {"name": segmenter, **options}},
        "data": {"name": "map-folder", "root": str(root), "image_size": 32, "batch_size": 2, "validation": 0.25},
        "augment": {
            "scale_range": [0.8, 1.5], "crop_most": 0.75, "photometric": 0.5, "crop_scale": None,
            "randaugment": None, "color_jitter": None, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0,
        },
        "task": {"name": "segment", "label_smoothing": 0.0},
    }  # fmt: skip
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    return Recipe.model_validate_json(json.dumps(values))


def toy_batch(batch=2, size=(32, 40)):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, *size, generator=generator)
    targets = torch.randint(0, 3, (batch, *size), generator=generator).to(torch.uint8)
    targets[:, 0] = 255
    return Batch(images, targets, torch.arange(batch))


@pytest.mark.parametrize("segmenter", ["semantic_fpn", "upernet"])
def test_losses_are_sums_over_the_units(segmenter):
    weights = {"ground": 0.2}
    task = SegmentTask(segment_recipe(segmenter=segmenter, task={"class_weights": weights}), INFO)
    torch.manual_seed(0)
    model, batch = task.build_model().train(), toy_batch()
    torch.manual_seed(1)
    step = task.step(model, batch)
    torch.manual_seed(1)
    outputs = model(batch.images)
    units = task.loss_divisors(batch)
    assert tuple(step.losses) == task.losses == tuple(units)
    factors = {"cross_entropy": ("logits", 1.0), "auxiliary": ("auxiliary", 0.4)}
    for name, loss in step.losses.items():
        output, factor = factors[name]
        logits = full_size(outputs[output], model.stride, (32, 40))
        weight = torch.tensor([0.2, 1.0, 1.0])
        mean = F.cross_entropy(logits, batch.targets.long(), weight=weight, ignore_index=255)
        assert_close(loss / units[name], factor * mean, OUTPUT[torch.float32])
    sum(step.losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_lone_image_goes_with_a_stand_in_that_has_no_target():
    task = SegmentTask(segment_recipe(segmenter="upernet"), INFO)
    model = task.build_model().train()
    assert task.step(model, toy_batch(1)).losses["cross_entropy"].isfinite()
    blank = task.step(model, task.empty_batch()).losses
    assert (
        all(float(loss.detach()) == 0 for loss in blank.values())
        and task.loss_divisors(task.empty_batch())["auxiliary"] == 0
    )
    with pytest.raises(ValueError, match=r"data\.batch_size is 1"):
        SegmentTask(segment_recipe(segmenter="upernet", data={"batch_size": 1}), INFO)


def test_metrics_are_those_of_the_formulas():
    there = [torch.tensor([[0, 0, 1], [1, 255, 255]]), torch.tensor([[0, 1, 1, 1]])]
    said = [torch.tensor([[0, 1, 1], [0, 2, 1]]), torch.tensor([[0, 1, 1, 1]])]
    parts = [SegmentEvaluation(("a", "b", "c")) for _ in range(2)]
    for part, one, other in zip(parts, there, said, strict=True):
        part.update([other], Batch([], [one], torch.tensor([0])))
    eval_result = parts[0].compute(parts[0].sums() + parts[1].sums(), [None, None])
    # a: 2 of 3 found, one b taken for it; b: 4 of 5 found, one a taken for it; c: not there, and not said where known.
    assert eval_result.metrics == pytest.approx(
        {
            "miou": (2 / 4 + 4 / 6) / 2,
            "mean_accuracy": (2 / 3 + 4 / 5) / 2,
            "pixel_accuracy": 6 / 8,
            "count": 2,
        }
    )
    assert eval_result.details["classes"][2] == {"class": "c", "iou": None, "accuracy": None, "pixels": 0}
    assert eval_result.details["confusion"] == [[2, 1, 0], [1, 4, 0], [0, 0, 0]]
    json.dumps(eval_result.details, allow_nan=False)


class Local(torch.nn.Module):
    """Logits of each step of the grid from its own pixels: windows must change nothing."""

    stride, num_classes = 4, 3

    def forward(self, images):
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % 8, 0, -height % 8))
        return F.avg_pool2d(padded, 4)


@pytest.mark.parametrize("size", [(37, 50), (16, 70), (64, 65)])
def test_windows_cover_the_whole_picture(size):
    images = torch.randn(2, 3, *size)
    found = windowed_logits(Local(), images, 22)
    rows, columns = -(-size[0] // 4), -(-size[1] // 4)
    assert_close(found, Local()(images)[..., :rows, :columns], OUTPUT[torch.float32])
    for length in (25, 31, 64, 100):
        begins = starts(length, 24, 4)
        assert begins[0] == 0 and begins[-1] + 24 >= length and all(begin % 4 == 0 for begin in begins)
        assert all(b - a <= 20 for a, b in pairwise(begins))


def test_classes_at_the_pictures_own_size():
    logits = torch.randn(2, 11, 6, 8)
    grown = F.interpolate(full_size(logits, 4, (22, 30)), size=(33, 45), mode="bilinear")
    for at_once in (1, 3, 4, 11, 100):
        found = torch.stack(classes_at(logits, 4, (22, 30), (33, 45), at_once=at_once))
        assert torch.equal(found, grown.argmax(1))
    same = torch.stack(classes_at(logits, 4, (22, 30), (22, 30)))
    assert torch.equal(same, full_size(logits, 4, (22, 30)).argmax(1))


def test_batches_are_a_function_of_seed_epoch_and_index(tmp_path):
    recipe = segment_recipe(map_folder(tmp_path), data={"image_size": [32, 24]})
    splits = open_data(recipe.data, seed=0)
    task = SegmentTask(recipe, splits.info)
    made = task.training_batches(splits.train, seed=0, epoch=1)
    both, second = made[0, np.array([0, 3])], made[5, np.array([3])]
    assert both.images.shape == (2, 3, 32, 24) and both.targets.dtype == torch.uint8
    assert torch.equal(both.images[1], second.images[0]) and torch.equal(both.targets[1], second.targets[0])
    other = task.training_batches(splits.train, seed=0, epoch=2)[0, np.array([3])]
    assert not torch.equal(other.images[0], second.images[0])


def test_picture_and_map_move_together(tmp_path):
    """In these pictures the colour tells the class, whatever is done to both."""
    changes = {"photometric": 0.0, "scale_range": [0.5, 2.0]}
    base = segment_recipe(map_folder(tmp_path, size=(60, 50)))
    recipe = base.model_copy(update={"augment": base.augment.model_copy(update=changes)})
    splits = open_data(recipe.data, seed=0)
    batches = SegmentTask(recipe, splits.info).training_batches(splits.train, seed=0, epoch=0)
    batch = batches[0, np.arange(6)]
    inner = batch.targets[:, 1:] != 255
    said = batch.images[:, [0, 2, 1]].argmax(1)[
        :, 1:
    ]  # ground is the darkest: red is its largest by noise alone
    coloured = inner & (batch.targets[:, 1:] > 0)
    right = (said == batch.targets[:, 1:]) & coloured
    assert right.sum() / coloured.sum() > 0.95


def test_answers_hold_the_map_and_are_drawn(tmp_path):
    recipe = segment_recipe(map_folder(tmp_path), data={"eval_resize": 40}, task={"window": 32})
    splits = open_data(recipe.data, seed=0)
    task = SegmentTask(recipe, splits.info)
    model = task.build_model().eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 61, 3), dtype=np.uint8))
    (answer,) = task.predictions_of(model, [task.preprocess(picture)], top=1)
    json.dumps(answer)
    batch = Batch([task.preprocess(picture)[0]], [torch.zeros(50, 61)], torch.tensor([0]))
    with torch.inference_mode():
        (classes,) = task.predict(model, batch)
    assert np.array_equal(class_map(answer), classes.numpy())
    assert sum(segment["pixels"] for segment in answer["segments"]) == 50 * 61
    drawn = task.draw(picture, answer)
    assert np.array_equal(np.asarray(drawn["map"]), classes.numpy()) and drawn["drawn"].size == picture.size
    assert len(task.format_lines(answer)) == len(answer["segments"])


def test_windows_are_cut_from_the_picture_at_its_own_size(tmp_path):
    splits = open_data(segment_recipe(map_folder(tmp_path)).data, seed=0)

    def shape(size, **task):
        made = SegmentTask(segment_recipe(tmp_path, data={"eval_resize": 16}, task=task), splits.info)
        batch = made.evaluation_batches(splits.validation)[0, np.array([0])]
        return tuple(made.preprocess(Image.new("RGB", size))[0].shape[-2:]), tuple(batch.images[0].shape[-2:])

    assert shape((60, 40)) == ((16, 24), (16, 19))
    assert shape((60, 40), window=22) == ((40, 60), (20, 24))
    assert shape((60, 40), window=22, window_scale=0.5) == ((20, 30), (16, 19))


def test_what_does_not_go_together_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model\.segmenter is not set"):
        SegmentTask(segment_recipe(model={"segmenter": None}), INFO)
    with pytest.raises(ValueError, match=r"augment\.cutmix, augment\.mixup: not for pictures with maps"):
        SegmentTask(segment_recipe(augment={"mixup": 0.8, "cutmix": 1.0}), INFO)
    with pytest.raises(ValueError, match="no class 'grond'; the nearest is 'ground'"):
        SegmentTask(segment_recipe(task={"class_weights": {"grond": 0.5}}), INFO)
    digits = segment_recipe(data={"name": "digits", "root": None})
    splits = open_data(digits.data, seed=0)
    with pytest.raises(ValueError, match="have no maps"):
        SegmentTask(digits, splits.info).training_batches(splits.train, seed=0, epoch=0)

"""Faster and Mask R-CNN as graphs: what they find is what the detector finds, number by number, and a file is judged by
its objects."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from crosshead.data.coco.rle import to_coco
from crosshead.export.about import About
from crosshead.export.checks import Images, RanDetector
from crosshead.export.objects import masks_of
from crosshead.export.regions import kept_apart, read_level, translations
from crosshead.export.runtime import open_session
from crosshead.export.two_stage import TwoStages
from crosshead.export.two_stage_checks import compare_found
from crosshead.tasks.detect import results
from models.test_detectors import detector

SIZES = [(160, 128), (131, 97)]  # the second is padded
ABOUT = About(
    task="detect", answers="objects", classes=tuple("abc"), size=(160, 128), mean=(0.5,) * 3, std=(0.25,) * 3,
    crop="none", multiple=32, varying=("batch",), detector={"nms_threshold": 0.5, "max_detections": 100},
)  # fmt: skip


def varied(name, **options):
    """A detector that finds a lot, here and there."""
    model = detector(name, **options).eval()
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=drawn))
    return model


def two_pictures():
    images = torch.randn(2, 3, 160, 128, generator=torch.Generator().manual_seed(1))
    images[1, :, 131:] = images[1, :, :, 97:] = 0
    return images


class File:
    """The graph before it is one, in a file's place."""

    def __init__(self, model, told=ABOUT):
        self.module, self.about = TwoStages(model), told

    @torch.no_grad()
    def run(self, images, sizes):
        given = torch.from_numpy(images), torch.tensor(sizes, dtype=torch.float32)
        return [each.numpy() for each in self.module(*given)]


MANY = dict(proposals=(50, 20, 2000, 1000), score_threshold=0.0)  # beyond where torchvision moves boxes apart


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mask_rcnn", {}),
        ("mask_rcnn", MANY),
        ("faster_rcnn", dict(score_threshold=0.9)),
        ("faster_rcnn", MANY),
    ],
)
@pytest.mark.parametrize("varying", [(), ("batch",)])
def test_the_graph_finds_what_the_detector_finds(name, options, varying):
    model = varied(name, **options)
    want = model(two_pictures(), SIZES)
    got = RanDetector(File(model, replace(ABOUT, varying=varying)))(two_pictures(), SIZES)
    for found, expected in zip(got, want, strict=True):
        assert found.keys() == expected.keys() and len(found["scores"]) == len(expected["scores"])
        assert (len(found["scores"]) > 40) == ("proposals" in options or not options)
        assert torch.equal(found["labels"], expected["labels"])
        for key in found.keys() - {"labels"}:
            assert torch.allclose(found[key], expected[key], atol=1e-4, rtol=0), key


def test_pictures_of_another_size_want_a_file_of_theirs():
    with pytest.raises(ValueError, match="one batch is 96 x 96; export with --size HxW"):
        RanDetector(File(detector("faster_rcnn")))(torch.zeros(1, 3, 96, 96), [(96, 96)])


@torch.no_grad()
@pytest.mark.parametrize("where", ["rpn.head.bbox_pred", "roi_heads.box_predictor.cls_score"])
def test_what_is_not_finite_is_not_passed_over(where):
    model = varied("faster_rcnn")
    model.net.get_submodule(where).bias[0] = torch.nan
    _, scores, _ = TwoStages(model)(two_pictures())
    assert scores.isnan().all()


class Operators(nn.Module):
    def forward(self, boxes, scores, level, here):
        image = torch.arange(2, dtype=torch.float32).repeat_interleave(30)[:, None]
        regions = torch.cat([image, boxes.flatten(0, 1)], 1)
        into = torch.ones(60, 4, 7, 7)
        return kept_apart(boxes, scores, 0.5), read_level(into, level, regions, here.flatten(), 0.25, 2)


def test_the_operators_are_torchvisions_in_onnx_too(tmp_path):
    drawn = torch.Generator().manual_seed(0)
    corner, side = torch.rand(2, 30, 2, generator=drawn) * 50, torch.rand(2, 30, 2, generator=drawn) * 40
    scores = torch.rand(2, 30, generator=drawn)
    scores[:, ::4] = scores.new_tensor(-1)
    scores[:, 5:8] = 0.5  # of equal ones the first
    boxes, level = torch.cat([corner, corner + side], -1), torch.randn(2, 4, 16, 12, generator=drawn)
    some = boxes, scores, level, scores > 0.4
    program = torch.onnx.export(
        Operators().eval(), some, dynamo=True, verbose=False, custom_translation_table=translations()
    )
    program.save(tmp_path / "o.onnx")
    session = open_session(tmp_path / "o.onnx")
    names = [each.name for each in session.get_inputs()]
    for given in (some, (boxes, -scores.abs() - 1, level, torch.zeros(2, 30, dtype=torch.bool))):
        got = session.run(None, {name: each.numpy() for name, each in zip(names, given, strict=True)})
        want = Operators()(*given)
        assert np.array_equal(got[0], want[0].numpy()) and want[0].any() == (given is some)
        assert not want[0][:, ::4].any()
        assert np.abs(got[1] - want[1].numpy()).max() <= 1e-5


def test_masks_are_pasted_as_by_torchvision():
    drawn = torch.Generator().manual_seed(0)
    masks = torch.rand(12, 28, 28, generator=drawn)
    corner, side = torch.rand(12, 2, generator=drawn) * 40, torch.rand(12, 2, generator=drawn) * 30
    boxes = torch.cat([corner, (corner + side).clamp(max=60)], 1)
    boxes[0], boxes[1] = torch.tensor([0.0, 0, 60, 60]), torch.tensor([59.9, 59.9, 60, 60])
    want = [to_coco(each) for each in results.masks_of(masks[:, None], boxes, (60, 60))]
    assert masks_of(masks.numpy(), boxes.numpy(), (60, 60)) == want


def _compared(model, change):
    file = File(model)

    def run(images, sizes):
        outputs = [each.copy() for each in file.run(images, sizes)]
        change(*outputs)
        return outputs

    return compare_found(model, run, Images(ABOUT), [(2, 160, 128)])


def nothing(*outputs): ...


def swapped(boxes, scores, labels, masks):
    for each in (boxes, scores, labels, masks):
        each[:] = each[:, ::-1].copy()


def last_left_out(boxes, scores, labels, masks):
    scores[:, -1] = -1


def first_left_out(boxes, scores, labels, masks):
    scores[:, 0] = -1


def moved(boxes, scores, labels, masks):
    boxes[:, 0] += 0.1


def another_mask(boxes, scores, labels, masks):
    masks[:, 0, 3, 3] += 0.01


def another_class(boxes, scores, labels, masks):
    labels[:, 0] = (labels[:, 0] + 1) % 3


def no_number(boxes, scores, labels, masks):
    scores[:] = np.nan


def test_a_file_is_judged_by_its_objects():
    model = varied("mask_rcnn", max_detections=10)
    for change, ties in ((nothing, 0), (swapped, 0), (last_left_out, 4)):
        found = _compared(model, change)
        assert (found.objects, found.ties) == (40, ties) and found.difference <= 1e-6
    for change in (first_left_out, moved, another_mask, another_class, no_number):
        with pytest.raises(ValueError, match=r"finds other objects than the model \(.*what only the"):
            _compared(model, change)


@torch.no_grad()
def test_of_two_boxes_that_score_alike_either_may_stay():
    """All scores are one, and each box that suppresses another may be suppressed by it."""
    model = varied("faster_rcnn")
    predictor = model.net.roi_heads.box_predictor.cls_score
    predictor.weight.zero_(), predictor.bias.copy_(torch.tensor([0.0, 1, 1, 1]))
    other = varied("faster_rcnn")
    other.load_state_dict(model.state_dict())
    other.net.roi_heads.box_predictor.cls_score.weight[1:] += 1e-6  # ties fall another way
    file = File(other)
    found = compare_found(model, file.run, Images(ABOUT), [(1, 160, 128)])
    assert 0 < found.ties < found.objects

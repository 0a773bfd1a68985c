"""A dense detector's raw outputs become what the detector itself finds, in NumPy; a file is judged in its place."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from crosshead.export.about import About
from crosshead.export.checks import Ran, RanDetector
from crosshead.export.graphs import DenseAnchors
from crosshead.models.detectors import build_detector
from models.dense_cases import small_maps

SIZES = [(96, 96), (70, 90)]  # the second is padded
OPTIONS = {"retinanet": {"norm": True}, "fcos": {}}


def detector(name):
    torch.manual_seed(0)
    options = OPTIONS[name] | {"score_threshold": 0.02, "max_detections": 30}
    model = build_detector(name, small_maps(), 3, pyramid={"width": 32}, **options).eval()
    with torch.no_grad():
        for parameter in model.net.head.parameters():  # scores that differ
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


def about(model, **options):
    net = model.net
    settings = {
        "strides": list(model.pyramid.strides),
        "per_location": net.anchor_generator.per_location,
        "candidates": net.topk_candidates,
        "score_threshold": net.score_thresh,
        "nms_threshold": net.nms_thresh,
        "max_detections": net.detections_per_img,
        "shown_threshold": 0.0,
    }
    return About(
        task="detect", answers="objects", classes=tuple("abc"), size=(96, 96), crop="none", detector=settings,
        multiple=32, **options,
    )  # fmt: skip


class File:
    """The graph before it is one, in a file's place."""

    def __init__(self, model, told):
        self.module, self.about = DenseAnchors(model), told

    @torch.no_grad()
    def run(self, images, sizes=None):
        return [each.numpy() for each in self.module(torch.from_numpy(images))]


@torch.no_grad()
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("varying", [(), ("batch", "size")])
def test_kept_boxes_are_the_detectors(name, varying):
    model = detector(name)
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    images[1, :, 70:] = images[1, :, :, 90:] = 0
    want = model(images, SIZES)
    got = RanDetector(File(model, about(model, varying=varying)))(images, SIZES)
    for found, expected in zip(got, want, strict=True):
        assert len(found["boxes"]) == len(expected["boxes"]) == 30
        assert torch.equal(found["labels"], expected["labels"])
        assert (found["scores"] - expected["scores"]).abs().max() <= 1e-6
        assert (found["boxes"] - expected["boxes"]).abs().max() <= 1e-4


def test_a_file_of_one_size_judges_no_other():
    told = About(size=(96, 64), answers="segments", classes=("a", "b"))
    file = SimpleNamespace(about=told, run=lambda images, sizes: [images])
    assert Ran(file)(torch.zeros(2, 3, 96, 64)).shape == (2, 3, 96, 64)
    with pytest.raises(
        ValueError, match=r"not all 96 x 64 pixels.*one batch is 64 x 64.*--dynamic batch,size"
    ):
        Ran(file)(torch.zeros(2, 3, 64, 64))
    free = SimpleNamespace(about=replace(told, varying=("batch", "size"), multiple=32), run=file.run)
    assert Ran(free)(torch.zeros(1, 3, 70, 64)).shape == (1, 3, 96, 64)

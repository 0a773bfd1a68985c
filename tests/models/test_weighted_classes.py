"""Weights of classes in detectors' losses: with ones they are torchvision's, and an object weighs as it is told."""

from copy import deepcopy

import pytest
import torch

from crosshead.models.detectors import build_detector
from crosshead.models.weighted_classes import weigh_classes
from models.dense_cases import SIZES, images, small_maps, targets

OPTIONS = {
    "retinanet": {"pyramid": {"width": 8}, "anchor_size": 2.0, "norm": True},
    "fcos": {"pyramid": {"width": 32}},
    "faster_rcnn": {"pyramid": {"width": 8}, "box_width": 16, "roi_samples": 32, "rpn_samples": 32},
    "mask_rcnn": {"pyramid": {"width": 8}, "box_width": 16, "mask_layers": [8], "roi_samples": 32},
}


def losses(name, weights=None, *, empty=False):
    detector = build_detector(name, small_maps(), 3, **OPTIONS[name])
    if weights is not None:
        weigh_classes(detector, torch.tensor(weights))
    torch.manual_seed(1)  # for the samples that are drawn
    found = detector(images(), SIZES, targets(empty=empty))
    sum(found.values()).backward()
    gradients = {n: p.grad for n, p in detector.named_parameters() if p.grad is not None}
    return {key: value.item() for key, value in found.items()}, gradients


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_weights_of_one_change_nothing(name, empty):
    torch.manual_seed(0)
    (plain, gradients), (weighed, same) = losses(name, empty=empty), losses(name, [1.0] * 3, empty=empty)
    assert weighed == pytest.approx(plain, rel=1e-5)
    assert gradients.keys() == same.keys()
    assert all(torch.allclose(gradients[n], same[n], atol=1e-5, rtol=1e-3) for n in gradients)


def test_a_copy_weighs_with_its_own_weights():
    """As an average of the weights is: a copy that computed with the first model's tensors would go unnoticed."""
    detector = build_detector("faster_rcnn", small_maps(), 3, **OPTIONS["faster_rcnn"])
    weigh_classes(detector, torch.tensor([1.0, 2.0, 3.0]))
    assert not any("class_weights" in name for name in detector.state_dict())
    copied = deepcopy(detector)
    with torch.no_grad():
        copied.net.roi_heads.box_predictor.cls_score.bias += 5 * torch.arange(4)
    found = []
    for model in (detector, copied):
        torch.manual_seed(1)
        found.append(model(images(), SIZES, targets())["classes"].item())
    assert abs(found[0] - found[1]) > 0.1


@pytest.mark.parametrize("name", OPTIONS)
def test_a_weight_counts_for_its_own_class_alone(name):
    """Classes 2 and 0 are there, class 1 is not; what is linear in a weight is told apart by three points."""
    plain = losses(name, [1.0, 1.0, 1.0])[0]
    absent = losses(name, [1.0, 9.0, 1.0])[0]
    twice, thrice = losses(name, [1.0, 1.0, 2.0])[0], losses(name, [1.0, 1.0, 3.0])[0]
    assert absent == pytest.approx(plain, rel=1e-5)
    step = twice["classes"] - plain["classes"]
    assert step > 1e-4 and thrice["classes"] - twice["classes"] == pytest.approx(step, rel=1e-2)
    others = [key for key in plain if key != "classes"]
    assert {key: twice[key] for key in others} == pytest.approx({key: plain[key] for key in others}, rel=1e-5)

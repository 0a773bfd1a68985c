"""Detectors: their losses and gradients, pictures of mixed sizes and without objects, float32 boxes, bad input."""

import pytest
import torch
from timm.optim import param_groups_layer_decay

from crosshead.libraries import need
from crosshead.models.detectors import Anchors, build_detector
from models.dense_cases import SIZES, images, small_maps, targets

LOSSES = {
    "retinanet": {"classes", "boxes"},
    "fcos": {"classes", "boxes", "centerness"},
    "faster_rcnn": {"objectness", "proposals", "classes", "boxes"},
    "mask_rcnn": {"objectness", "proposals", "classes", "boxes", "masks"},
}


def detector(name, **options):
    torch.manual_seed(0)
    if name.endswith("rcnn"):
        options = dict(box_width=32, proposals=(50, 20, 50, 20), roi_samples=16) | options
    if name == "mask_rcnn":
        options = dict(mask_layers=(16,)) | options
    return build_detector(name, small_maps(), 3, pyramid={"width": 32 if name == "fcos" else 16}, **options)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_losses_and_a_gradient_everywhere(name, empty, norm):
    options = {"norm": norm} if name in ("retinanet", "mask_rcnn") else {}
    model = detector(name, **options).to(memory_format=torch.channels_last)
    model.set_grad_checkpointing()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(images().to(memory_format=torch.channels_last), SIZES, targets(empty=empty))
    assert losses.keys() == LOSSES[name]
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@torch.no_grad()
@pytest.mark.parametrize("name", LOSSES)
def test_what_is_found_lies_in_its_own_picture(name):
    model = detector(name, score_threshold=0.0).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(images(), SIZES)
    for each, (height, width) in zip(found, SIZES, strict=True):
        assert len(each["boxes"]) > 0 and each["boxes"].dtype == torch.float32
        assert (each["boxes"] >= 0).all()
        assert (each["boxes"] <= torch.tensor([width, height, width, height])).all()
        assert (each["labels"] >= 0).all() and (each["labels"] < 3).all()
        assert (each["scores"].diff() <= 0).all()
        # Boxes in bfloat16 would lie on a grid: from 32 pixels on it has quarters only.
        assert (each["boxes"][each["boxes"] > 32] % 0.25 != 0).any()
        if name == "mask_rcnn":
            assert each["masks"].shape == (len(each["boxes"]), 1, 28, 28)


@torch.no_grad()
def test_a_picture_alone_and_in_a_batch_gives_the_same():
    model = detector("mask_rcnn", score_threshold=0.0).eval()
    x = images()
    x[1, :, 64:] = x[1, :, :, 50:] = 0
    together = model(x, SIZES)[0]
    alone = model(x[:1], SIZES[:1])[0]
    assert torch.allclose(together["boxes"], alone["boxes"], atol=1e-3)
    assert torch.allclose(together["scores"], alone["scores"], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [pytest.param("retinanet", {"norm": True}, marks=pytest.mark.soak), ("fcos", {})],
)
def test_it_learns_one_picture(name, options):
    model, x, wanted = detector(name, **options), images(), targets()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        sum(model(x, SIZES, wanted).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        first, second = model.eval()(x, SIZES)
    order = first["labels"][:2].argsort(descending=True)
    assert first["labels"][order].tolist() == [2, 0]
    assert (first["boxes"][order] - wanted[0]["boxes"]).abs().max() < 8
    assert first["scores"][1] > 0.3 and not (second["scores"] > 0.3).any()


def test_without_anchors_the_width_divides_and_overlaps_can_be_left():
    with pytest.raises(ValueError, match=r"pyramid.width must be a multiple of 32, .* got 48"):
        build_detector("fcos", small_maps(), 3, pyramid={"width": 48})
    for name in LOSSES:
        model = detector(name, score_threshold=0.0, max_detections=20).eval()
        with torch.no_grad():
            before = len(model(images(), SIZES)[0]["scores"])
            model.leave_overlaps()
            assert before == 20 < len(model(images(), SIZES)[0]["scores"]) <= 100


def test_anchors_stand_on_the_strides_that_are_given():
    anchors = Anchors([(8.0,), (16.0,)], (1.0,), (4, 8))
    levels = [torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 2, 1)]
    pictures = need("torchvision.models.detection.image_list").ImageList(torch.zeros(1, 3, 9, 7), [(9, 7)])
    got = anchors(pictures, levels)[0]
    assert got.shape == (8, 4)
    assert got[:2].tolist() == [[-4, -4, 4, 4], [0, -4, 8, 4]]
    assert got[-1].tolist() == [-8, 0, 8, 16]


def test_the_backbone_is_trained_as_it_asks_under_its_new_names():
    model = detector("retinanet")
    spared = model.no_weight_decay()
    assert spared and spared <= {name for name, _ in model.named_parameters()}
    groups = param_groups_layer_decay(model, 0.05, tuple(spared), layer_decay=0.5)
    rates = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    scale = {name: rates[id(p)] for name, p in model.named_parameters()}
    layers = ("stem.0.weight", "stages.0.blocks.0.norm.weight", "stages.1.blocks.0.norm1.weight")
    assert [scale[f"pyramid.maps.body.model.{name}"] for name in layers] == [0.0625, 0.125, 0.25]
    assert {scale[name] for name in scale if "body" not in name} == {1}


def test_bad_input_is_named(monkeypatch):
    with pytest.raises(
        ValueError, match="no detector 'yolo'; expected retinanet, fcos, faster_rcnn, mask_rcnn"
    ):
        detector("yolo")
    with pytest.raises(
        ValueError, match=r"anchor_sizes must have one entry a level, 4 \(strides 4, 8, 16, 32\), got 2"
    ):
        detector("mask_rcnn", anchor_sizes=(8, 16))
    with pytest.raises(ValueError, match="proposals must be four numbers"):
        detector("mask_rcnn", proposals=(8, 16))
    with pytest.raises(
        ValueError, match=r"model.detector: retinanet has no option 'nrm', .*'norm'; .* ratios"
    ):
        detector("retinanet", nrm=True)
    with pytest.raises(ValueError, match="the pyramid has no option 'widths', the nearest is 'width'"):
        build_detector("mask_rcnn", small_maps(), 3, pyramid={"widths": 16})
    for name, option in (("mask_rcnn", "masks"), ("faster_rcnn", "mask_layers"), ("faster_rcnn", "norm")):
        with pytest.raises(ValueError, match=f"{name} has no option '{option}'"):
            detector(name, **{option: True})
    with pytest.raises(ValueError, match="mask_layers is empty"):
        detector("mask_rcnn", mask_layers=[])
    with pytest.raises(ValueError, match="training a detector needs targets"):
        detector("retinanet")(images(), SIZES)
    monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval", None)
    with pytest.raises(ImportError, match=r"pip install 'crosshead\[dense\]' brings it"):
        need("faster_coco_eval")

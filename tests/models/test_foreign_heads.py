"""Detectors of torchvision and segmenters of segmentation-models-pytorch, from a file into models of here."""

import logging

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList

from crosshead.models.build import build_backbone
from crosshead.models.detectors import build_detector
from crosshead.models.foreign_heads import load_foreign_heads
from crosshead.models.pyramid import Maps
from crosshead.models.segmenters import build_segmenter
from crosshead.recipe.schema import ModelConfig


def on_resnet(file):
    model = ModelConfig(name="resnet18", init_from=str(file))
    return Maps(build_backbone(model), out_indices=[1, 2, 3, 4])


def stirred(model):
    """Its state, no tensor of which is what a new model begins with."""
    torch.manual_seed(0)
    state = model.eval().state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point() and "running_var" not in name and tensor.ndim < 2:
            tensor.add_(0.1 * torch.randn_like(tensor))
    return state


def test_a_detector_of_torchvision_finds_what_it_found(tmp_path):
    theirs = FasterRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None), 4, box_score_thresh=0.0)
    save_file(stirred(theirs), tmp_path / "detector.safetensors")
    ours = build_detector("faster_rcnn", on_resnet(tmp_path / "detector.safetensors"), 3, score_threshold=0.0)
    taken = load_foreign_heads(ours, tmp_path / "detector.safetensors")
    assert {name for name in ours.state_dict() if "pyramid.maps" not in name} == set(taken)
    images, sizes = torch.randn(1, 3, 96, 128), [(96, 128)]
    ours.eval()
    with torch.no_grad():
        features = theirs.backbone(images)
        for got, wanted in zip(ours.pyramid(images), features.values(), strict=False):
            assert torch.allclose(got, wanted, atol=1e-4)
        theirs.rpn.anchor_generator = ours.net.rpn.anchor_generator  # sizes of anchors are no weights
        proposals, _ = theirs.rpn(ImageList(images, sizes), features)
        wanted = theirs.roi_heads(features, proposals, sizes)[0][0]
        got = ours(images, sizes)[0]
    assert len(wanted["boxes"]) and torch.allclose(got["boxes"], wanted["boxes"], atol=1e-2)
    assert torch.allclose(got["scores"], wanted["scores"], atol=1e-4)


def test_what_is_for_other_classes_starts_anew_and_is_named(tmp_path, caplog):
    theirs = RetinaNet(resnet_fpn_backbone(backbone_name="resnet18", weights=None), 7)
    save_file(stirred(theirs), tmp_path / "detector.safetensors")
    ours = build_detector(
        "retinanet", on_resnet(tmp_path / "detector.safetensors"), 2, pyramid={"extra": "pool"}
    )
    fresh = ours.net.head.classification_head.cls_logits.weight.clone()
    with caplog.at_level(logging.WARNING):
        taken = load_foreign_heads(ours, tmp_path / "detector.safetensors")
    assert "net.head.regression_head.conv.0.0.weight" in taken
    assert "started anew: net.head.classification_head.cls_logits." in caplog.text
    assert torch.equal(ours.net.head.classification_head.cls_logits.weight, fresh)


def test_a_segmenter_of_smp_says_what_it_said(tmp_path):
    theirs = smp.UPerNet("resnet18", encoder_weights=None, classes=5, decoder_channels=32)
    save_file(stirred(theirs), tmp_path / "segmenter.safetensors")
    ours = build_segmenter("upernet", on_resnet(tmp_path / "segmenter.safetensors"), 5, width=32)
    taken = load_foreign_heads(ours, tmp_path / "segmenter.safetensors")
    assert {n for n in ours.state_dict() if n.startswith(("decoder.", "classifier."))} == set(taken)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        wanted = theirs.segmentation_head[0](theirs.decoder(theirs.encoder(images)))
        assert torch.allclose(ours.eval()(images), wanted, atol=1e-4)


def test_smps_fpn_gives_its_branches_and_the_rest_is_listed(tmp_path, caplog):
    theirs = smp.FPN("resnet18", encoder_weights=None, classes=5)
    save_file(stirred(theirs), tmp_path / "segmenter.safetensors")
    ours = build_segmenter("semantic_fpn", on_resnet(tmp_path / "segmenter.safetensors"), 5)
    with caplog.at_level(logging.WARNING):
        load_foreign_heads(ours, tmp_path / "segmenter.safetensors")
    level = torch.randn(1, 256, 4, 4)
    for i, branch in enumerate(reversed(ours.branches)):
        assert torch.equal(branch(level), theirs.decoder.seg_blocks[i](level))
    assert "not used: decoder.p2.skip_conv.bias" in caplog.text


def test_a_classifiers_file_has_no_such_heads(tmp_path):
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "some.safetensors")
    assert load_foreign_heads(torch.nn.Linear(2, 2), tmp_path / "some.safetensors") == []


@pytest.mark.parametrize("head", ["semantic_fpn"])
def test_a_recipe_that_starts_from_such_a_file_has_them(tmp_path, head):
    from crosshead.data.base import DatasetInfo
    from crosshead.recipe import load_recipe
    from crosshead.tasks import open_task

    theirs = smp.FPN("resnet18", encoder_weights=None, classes=2)
    save_file(stirred(theirs), tmp_path / "segmenter.safetensors")
    words = [
        "model.name=resnet18",
        f"model.init_from={tmp_path / 'segmenter.safetensors'}",
        "model.drop_path_rate=0",
    ]
    recipe = load_recipe("segment_folder", [*words, f"model.segmenter.name={head}", "data.root=/nowhere"])
    model = open_task(recipe, DatasetInfo("x", ("a", "b"), 3, (0.5,) * 3, (0.5,) * 3)).build_model()
    assert torch.equal(model.classifier.weight, theirs.segmentation_head[0].weight)

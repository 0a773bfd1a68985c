"""Segmenters: sizes, gradients, the way to the picture's pixels, and bad input."""

import pytest
import timm
import torch

from crosshead.models.pyramid import Maps
from crosshead.models.segmenters import build_segmenter, full_size
from models.dense_cases import images, small_maps

NAMES = ("semantic_fpn", "upernet", "linear")
OPTIONS = {
    "semantic_fpn": {"width": 32, "pyramid": {"width": 16}},
    "upernet": {"width": 16, "auxiliary_width": 8},
    "linear": {},
}


def segmenter(name, maps=None, classes=5, **options):
    maps = small_maps() if maps is None else maps
    torch.manual_seed(0)
    return build_segmenter(name, maps, classes, **(OPTIONS.get(name, {}) | options))


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_a_gradient_everywhere(name):
    model = segmenter(name).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(images().to(memory_format=torch.channels_last))
    assert outputs.keys() == ({"logits", "auxiliary"} if name == "upernet" else {"logits"})
    for logits in outputs.values():
        assert logits.dtype == torch.float32
        assert full_size(logits, model.stride, (70, 90)).shape == (2, 5, 70, 90)
    sum(full_size(o, model.stride, (70, 90)).square().mean() for o in outputs.values()).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    with torch.no_grad():
        assert model.eval()(images(32, 17, batch=1)).shape[:2] == (1, 5)


def test_a_plain_vit_takes_semantic_fpn_and_a_linear_head():
    def maps():
        vit = timm.create_model(
            "vit_tiny_patch16_224", dynamic_img_size=True, depth=2, embed_dim=24, num_heads=3, num_classes=0
        )
        return Maps(vit, window=2)

    for name in ("semantic_fpn", "linear"):
        model = segmenter(name, maps())
        logits = model(images())["logits"]
        full_size(logits, model.stride, (70, 90)).mean().backward()
        assert not [n for n, p in model.named_parameters() if p.grad is None]
    with pytest.raises(ValueError, match="a backbone of three stages or more, got 1"):
        segmenter("upernet", maps())


def test_bad_input_is_named():
    with pytest.raises(
        ValueError, match="no segmenter 'unet'; expected semantic_fpn, upernet, linear, queries"
    ):
        segmenter("unet")
    with pytest.raises(ValueError, match=r"width must be a multiple of 32, .* got 48"):
        segmenter("semantic_fpn", width=48)
    with pytest.raises(
        ValueError, match=r"trains on 2 images a process or more, got 1; raise data.batch_size"
    ):
        segmenter("upernet")(images(batch=1))
    with pytest.raises(ValueError, match=r"model.segmenter: linear has no option 'depth'; it knows none"):
        segmenter("linear", depth=3)

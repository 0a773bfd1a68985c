"""Queries in the last blocks of a plain ViT: the paper's computation, windows, sizes and bad input."""

import pytest
import timm
import torch

from crosshead import swap_attention
from crosshead.models.pyramid import Maps
from crosshead.models.segmenters import build_segmenter, full_size
from models.dense_cases import images, small_maps


def vit(**options):
    torch.manual_seed(0)
    small = dict(
        dynamic_img_size=True, depth=4, embed_dim=24, num_heads=3, num_classes=0, patch_size=8, img_size=64
    )
    return timm.create_model("vit_tiny_patch16_224", **(small | options))


def segmenter(backbone=None, window=None, classes=5, **options):
    return build_segmenter("queries", Maps(backbone or vit(), window=window), classes, **options)


@pytest.mark.parametrize("stride", [8, 4, 2])
def test_logits_on_the_grid_and_a_gradient_everywhere(stride):
    model = segmenter(stride=stride)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images())["logits"]
    assert logits.dtype == torch.float32 and logits.shape[:2] == (2, 5)
    assert full_size(logits, model.stride, (70, 90)).shape == (2, 5, 70, 90)
    logits.square().mean().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert model.eval()(images(32, 17, batch=1)).shape[:2] == (1, 5)


def test_what_it_computes_is_written_out():
    model = segmenter(query_blocks=2, stride=8).eval()
    seen, trunk = images(48, 64), model.backbone
    tokens = trunk._pos_embed(trunk.patch_embed(seen))  # the class token first
    for block in trunk.blocks[:2]:
        tokens = block(tokens)
    tokens = torch.cat([tokens, model.queries.expand(2, -1, -1)], 1)  # attention knows no order
    for block in trunk.blocks[2:]:
        tokens = block(tokens)
    patches, queries = model.norm(tokens[:, 1:49]), model.to_mask(model.norm(tokens[:, 49:]))
    wanted = (queries @ patches.transpose(1, 2)).unflatten(2, (6, 8)) / 24**0.5
    assert torch.allclose(model(seen), wanted, atol=1e-5)


def test_windows_that_hold_the_whole_picture_change_nothing():
    backbone = vit()
    whole, windowed = segmenter(backbone, None, stride=8), segmenter(backbone, 8, stride=8)
    windowed.load_state_dict(whole.state_dict())
    seen = images(64, 64)
    assert torch.equal(whole.eval()(seen), windowed.eval()(seen))
    assert segmenter(window=2).eval()(seen).shape == (2, 5, 16, 16)


def test_heads_that_interact_take_part_and_the_queries_are_not_decayed():
    backbone = vit()
    swap_attention(backbone, overlap="index")
    model = segmenter(backbone)
    model(images())["logits"].mean().backward()
    assert model.queries.grad.abs().sum() > 0
    assert "queries" in model.no_weight_decay()


def test_activations_formed_again_give_the_same_gradients():
    model = segmenter()
    gradients = []
    for again in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(again)
        model(images())["logits"].square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="queries are for a plain ViT"):
        build_segmenter("queries", small_maps(), 5)
    with pytest.raises(ValueError, match=r"stride must be the patch's 8 pixels, .* got 3"):
        segmenter(stride=3)
    with pytest.raises(ValueError, match="query_blocks must be from 1 to the 4 blocks of the model, got 5"):
        segmenter(query_blocks=5)
    backbone = vit()
    swap_attention(backbone, "imhsa", landmarks=2, init="paper")
    with pytest.raises(ValueError, match="asks where its tokens lie"):
        segmenter(backbone)

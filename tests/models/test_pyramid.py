"""Pyramids on backbones of every kind: strides, sizes, gradients; windows of a plain ViT against its whole grid."""

import pytest
import timm
import torch

from crosshead import swap_attention
from crosshead.models.pyramid import Maps, Pyramid
from crosshead.models.windowed_vit import WindowedViT, _join, partition_windows
from models.dense_cases import images, small_maps
from tolerances import GRADIENT, OUTPUT, assert_close

VIT = dict(patch_size=8, embed_dim=24, depth=4, num_heads=3, num_classes=0, img_size=32)


def vit(name="vit_tiny_patch16_224", **options):
    torch.manual_seed(0)
    return timm.create_model(name, dynamic_img_size=True, **(VIT | options))


BACKBONES = {
    "ivit": lambda: small_maps(depths=(1, 1, 1, 1), dims=(16, 24, 32, 48), num_heads=(2, 3, 4, 6)),
    "swin": lambda: Maps(
        timm.create_model(
            "mohsa_swin_tiny_patch4_window7_224",
            depths=(1, 1, 1, 1),
            embed_dim=12,
            strict_img_size=False,
            num_classes=0,
        )
    ),
    "convnext": lambda: Maps(timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))),
    "vit": lambda: Maps(vit(), window=3),
    "mohsa": lambda: Maps(vit("mohsa_vit_tiny_patch16_224"), window=3),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_levels_of_any_image_size_and_a_gradient_everywhere(name):
    pyramid = Pyramid(BACKBONES[name](), width=16, extra="pool")
    assert pyramid.strides == ((2, 4, 8, 16, 32) if pyramid.maps.is_plain else (4, 8, 16, 32, 64))
    levels = pyramid(images(70, 90))
    multiple = pyramid.maps.multiple
    for stride, level in zip(pyramid.strides[:-1], levels, strict=False):
        assert level.shape == (2, 16, *(-(-side // multiple) * multiple // stride for side in (70, 90)))
    torch.stack([level.square().mean() for level in levels]).sum().backward()
    assert not [n for n, p in pyramid.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_two_more_levels_by_convolution():
    pyramid = Pyramid(small_maps(), width=16, extra="convolve", norm=True)
    assert pyramid.strides == (4, 8, 16, 32, 64)
    levels = pyramid(images(70, 90))
    assert [tuple(level.shape[-2:]) for level in levels] == [(20, 24), (10, 12), (5, 6), (3, 3), (2, 2)]
    sum(level.square().mean() for level in levels).backward()
    assert not [n for n, p in pyramid.named_parameters() if p.grad is None]


@torch.no_grad()
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bfloat16_gives_float32_levels(memory_format):
    pyramid = Pyramid(small_maps(), width=16).eval().to(memory_format=memory_format)
    x = images().to(memory_format=memory_format)
    want = Pyramid(small_maps(), width=16).eval()
    want.load_state_dict(pyramid.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        levels = pyramid(x)
    for got, exact in zip(levels, want(images()), strict=True):
        assert got.dtype == torch.float32
        assert_close(got, exact, 2 * OUTPUT[torch.bfloat16])


@torch.no_grad()
def test_a_window_of_the_whole_grid_is_no_window():
    x = images(32, 48)
    plain = WindowedViT(vit(), window=None).eval()
    assert_close(WindowedViT(vit(), window=6).eval()(x), plain(x), 0)
    whole = vit().eval()
    want = whole.forward_intermediates(x, indices=1, norm=False, intermediates_only=True)[0]
    assert_close(plain(x), want, OUTPUT[torch.float32])
    everywhere = WindowedViT(vit(), window=2, global_blocks=range(4)).eval()
    assert_close(everywhere(x), plain(x), 0)
    cut = WindowedViT(vit(), window=2, global_blocks=[]).eval()
    assert not torch.allclose(cut(x), plain(x))


@torch.no_grad()
def test_windows_are_the_blocks_on_cut_out_tokens():
    body = WindowedViT(vit(depth=1, class_token=False, global_pool="avg"), window=2, global_blocks=[]).eval()
    x = images(32, 32, batch=1)  # 4 x 4 patches: four windows of 2 x 2
    tokens = body.vit._pos_embed(body.vit.patch_embed(x))
    block = body.vit.blocks[0]
    got = body(x)
    for row in (0, 2):
        for column in (0, 2):
            places = [(row + i) * 4 + column + j for i in (0, 1) for j in (0, 1)]
            alone = block(tokens[:, places]).transpose(1, 2).reshape(1, -1, 2, 2)
            assert_close(got[..., row : row + 2, column : column + 2], alone, OUTPUT[torch.float32])


@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (3, 1)])
def test_cut_and_joined_is_what_it_was(grid):
    tokens = torch.randn(2, grid[0] * grid[1], 5)
    windows, counts = partition_windows(tokens, grid, 3)
    assert windows.shape == (2 * counts[0] * counts[1], 9, 5)
    assert torch.equal(_join(windows, grid, 3, counts), tokens)


def test_interactive_attention_in_windows_and_checkpoints():
    model = vit()
    swap_attention(model, "imhsa", init="paper", landmarks=2)
    body = WindowedViT(model, window=3)
    x = images(40, 56)
    want = body(x)
    want.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in body.named_parameters()}
    body.zero_grad()
    model.set_grad_checkpointing(True)
    got = body(x)
    got.square().mean().backward()
    assert_close(got, want, OUTPUT[torch.float32])
    for name, parameter in body.named_parameters():
        assert_close(parameter.grad, gradients[name], GRADIENT[torch.float32], name)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"global_blocks must name blocks from 0 to 3, got \[4\]"):
        Maps(vit(), global_blocks=[0, 4])
    with pytest.raises(ValueError, match="window must be at least 2"):
        Maps(vit(), window=1)
    with pytest.raises(ValueError, match="out_indices must name stages from 0 to 2"):
        small_maps_of(out_indices=[3])
    with pytest.raises(ValueError, match="windows are for timm's VisionTransformer, got Eva"):
        Maps(timm.create_model("eva02_tiny_patch14_224", depth=2, embed_dim=24, num_heads=3))
    with pytest.raises(ValueError, match="14 pixels don't divide by 4"):
        Pyramid(Maps(vit(patch_size=14, img_size=28)))
    with pytest.raises(ValueError, match="extra must be none, pool or convolve, got 'p6'"):
        Pyramid(small_maps(), extra="p6")
    with pytest.raises(ValueError, match="Linear serves no maps"):
        Maps(torch.nn.Linear(1, 1))


def small_maps_of(**options):
    return Maps(small_maps().body.model, **options)

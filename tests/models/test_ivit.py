"""iViT: its sizes, its stages, its ablations, any image size, and what it refuses."""

import pytest
import timm
import torch
from timm.layers import Attention
from torch.utils.flop_counter import FlopCounterMode

from crosshead import swap_attention
from crosshead.layers import InteractingAttention
from crosshead.models import build_model
from crosshead.models.ivit import AttentionBlock, IViT
from crosshead.recipe import load_recipe
from tolerances import OUTPUT, assert_close

SMALL = dict(depths=(1, 1, 2, 1), dims=(16, 24, 32, 64), num_heads=(2, 3, 4, 8), num_classes=5)


def build(**options):
    torch.manual_seed(0)
    return IViT(**(SMALL | options)).eval()


def images(*size, batch=2):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "parameters", "macs"), [("tiny", 11, 2.0), ("small", 25, 4.5), ("base", 50, 9.0)]
)
def test_sizes_as_stated(name, parameters, macs):
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = timm.create_model(f"ivit_{name}")
        model(torch.empty(1, 3, 224, 224))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(parameters, rel=0.04)
    assert counter.get_total_flops() / 2e9 == pytest.approx(macs, rel=0.04)


@torch.no_grad()
@pytest.mark.parametrize("stages", [(), (2, 3), (0, 1, 2, 3), (0,)])
def test_any_stage_may_attend(stages):
    model = build(attention_stages=stages)
    attending = {i for i, s in enumerate(model.stages) for b in s.blocks if isinstance(b, AttentionBlock)}
    assert attending == set(stages)
    assert model(images(64, 64)).shape == (2, 5)


@torch.no_grad()
def test_maps_at_four_strides():
    model = timm.create_model("ivit_tiny", features_only=True, img_size=64).eval()
    maps = model(images(64, 96))
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    assert [tuple(m.shape[1:]) for m in maps] == [(56, 16, 24), (112, 8, 12), (224, 4, 6), (416, 2, 3)]
    pruned = timm.create_model("ivit_tiny", features_only=True, out_indices=(0, 2)).eval()
    assert len(pruned.model.stages) == 3
    pruned.load_state_dict(model.state_dict(), strict=False)
    for got, want in zip(pruned(images(64, 96)), (maps[0], maps[2]), strict=True):
        assert_close(got, want, OUTPUT[torch.float32])
    assert torch.equal(pruned.model(images(64, 96)), pruned(images(64, 96))[1])


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (33, 64), (50, 75), (96, 160)])
def test_any_size_is_padded_with_zeros(size):
    model = build()
    height, width = (-(-side // 32) * 32 for side in size)
    padded = torch.zeros(2, 3, height, width)
    padded[..., : size[0], : size[1]] = images(*size)
    assert_close(model(images(*size)), model(padded), OUTPUT[torch.float32])


@torch.no_grad()
def test_without_interaction_is_where_interaction_starts():
    with_it, without = build(), build(interaction=False)
    weights = {n: w for n, w in with_it.state_dict().items() if "mix_" not in n}
    without.load_state_dict(weights)
    assert len(with_it.no_weight_decay()) == 6 and not without.no_weight_decay()
    assert_close(with_it(images(64, 64)), without(images(64, 64)), OUTPUT[torch.float32])


def test_plain_attention_in_its_place_swaps_over():
    model = build(attn="mhsa")
    assert [type(b.attn) for b in model.stages[2].blocks] == [Attention, Attention]
    with pytest.raises(ValueError, match="init='preserve' can't hold"):
        swap_attention(model, "imhsa")
    swap_attention(model, "imhsa", init="paper", landmarks=2)
    layers = [m for m in model.modules() if isinstance(m, InteractingAttention)]
    assert len(layers) == 3 and all(layer.token_grid is None for layer in layers)
    own = build(landmarks=2)
    own.load_state_dict(model.state_dict())
    assert_close(model(images(64, 96)), own(images(64, 96)), OUTPUT[torch.float32])


@torch.no_grad()
def test_plain_attention_takes_overlapped_heads():
    model = build(attn="mhsa")
    want = model(images(64, 64))
    swap_attention(model, "overlap", overlap=2)
    assert_close(model(images(64, 64)), want, OUTPUT[torch.float32])


@torch.no_grad()
def test_channels_last_gives_the_same():
    model = build(attention_stages=(1, 2, 3))
    want = model(images(64, 96))
    got = model.to(memory_format=torch.channels_last)(images(64, 96).to(memory_format=torch.channels_last))
    assert_close(got, want, OUTPUT[torch.float32])


@torch.no_grad()
def test_captured_whole_and_exported():
    model = build()
    x = images(64, 64)
    assert_close(torch.compile(model, fullgraph=True, backend="eager")(x), model(x), OUTPUT[torch.float32])
    batch = {0: torch.export.Dim("batch", min=1, max=8)}
    program = torch.export.export(model, (x,), dynamic_shapes=(batch,)).module()
    assert_close(program(images(64, 64, batch=3)), model(images(64, 64, batch=3)), OUTPUT[torch.float32])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(depths=(1, 1, 1)), "one entry a stage, got 3, 4 and 4"),
        (dict(num_heads=(2, 3, 5, 8)), "dim 32 does not split into 5 equal heads"),
        (dict(attention_stages=(3, 4)), r"attention_stages must name stages from 0 to 3, got \[4\]"),
        (dict(attn="flash"), "attn must be imhsa or mhsa, got 'flash'"),
        (dict(stem_stride=3), "stem_stride must be 1, 2 or 4, got 3"),
        (dict(landmarks=0), "landmarks must be .* got 0"),
        (dict(img_size=(64, 16)), "at least 32 x 32, the total stride, got 64 x 16"),
    ],
)
def test_bad_construction_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_small_images_are_named():
    with pytest.raises(ValueError, match="images must be at least 32 x 32, the total stride, got 28 x 28"):
        build()(images(28, 28))
    with pytest.raises(ValueError, match="maps are NCHW, got output_fmt='NLC'"):
        build().forward_intermediates(images(32, 32), output_fmt="NLC")


def test_registered_models_and_recipes_keep_heads_apart_where_asked():
    """The ablation's three models are three: with mixing matrices, without them, and with plain attention."""
    apart = timm.create_model("ivit_micro_stride1_8", interaction=False)
    whole = timm.create_model("ivit_micro_stride1_8", interaction=True)
    assert not [name for name, _ in apart.named_parameters() if "mix_" in name]
    assert [name for name, _ in whole.named_parameters() if "mix_" in name]
    mixing = {}
    for name in ("ivit_digits", "ivit_digits_apart", "ivit_digits_mhsa"):
        model = build_model(load_recipe(name).model, num_classes=10, in_chans=3, img_size=8)
        mixing[name] = sum("mix_" in each for each, _ in model.named_parameters())
    assert mixing == {"ivit_digits": 8, "ivit_digits_apart": 0, "ivit_digits_mhsa": 0}


def test_a_registered_model_takes_a_kind_by_its_name():
    model = timm.create_model("plain_vit_micro_patch4_32", interaction="talking")
    assert [name for name, _ in model.named_parameters() if "proj_l" in name]

"""interactive_attention_layer, alone and inside timm's ViTs."""

import copy
from inspect import signature

import pytest
import timm
import torch
from timm.layers import Attention
from torch import nn

from crosshead import swap_attention
from crosshead.layers import Interactive, from_attention, interactive_attention_layer
from crosshead.ops.interactive import naive_interactive_attention
from tolerances import OUTPUT, assert_close


def tokens(count, dim=24, batch=2, seed=0):
    return torch.randn(batch, count, dim, generator=torch.Generator().manual_seed(seed))


def images(*size, batch=2):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def vit(name="vit_tiny_patch16_224", **options):
    torch.manual_seed(0)
    options = dict(img_size=64, num_classes=5, depth=2) | options
    return timm.create_model(name, **options).eval()


@torch.no_grad()
def test_layer_is_projections_around_the_equations():
    layer = interactive_attention_layer(24, 3, landmarks=(2, 3), num_prefix_tokens=1, qkv_bias=True).double()
    for mix in (layer.mix_query, layer.mix_key):
        mix.add_(0.3 * torch.randn(3, 3, dtype=torch.float64))
    x = tokens(21).double()
    q, k, v = layer.qkv(x).view(2, 21, 3, 3, 8).permute(2, 0, 3, 1, 4)
    heads = naive_interactive_attention(
        q,
        k,
        v,
        (4, 5),
        landmarks=(2, 3),
        num_prefix_tokens=1,
        mix_query=layer.mix_query,
        mix_key=layer.mix_key,
    )
    want = layer.proj(heads.transpose(1, 2).reshape(2, 21, 24))
    assert_close(layer(x, grid=(4, 5)), want, OUTPUT[torch.float64])


def test_interaction_starts_as_none_and_learns():
    torch.manual_seed(0)
    with_it = interactive_attention_layer(24, 3, landmarks=2)
    without = interactive_attention_layer(24, 3, landmarks=2, interaction=False)
    missing = without.load_state_dict(with_it.state_dict(), strict=False)
    assert missing.unexpected_keys == ["mix_query", "mix_key"] and not missing.missing_keys
    x = tokens(16)
    assert_close(with_it(x), without(x), OUTPUT[torch.float32])
    with_it(x).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in with_it.parameters())


def test_input_size_may_change_between_calls():
    layer = interactive_attention_layer(24, 3, landmarks=3)
    assert layer(tokens(16)).shape == (2, 16, 24)
    assert layer(tokens(25)).shape == (2, 25, 24)
    assert layer(tokens(14), grid=(2, 7)).shape == (2, 14, 24)


def test_takes_the_options_of_timms_attention():
    options = dict(dim_out=16, qk_norm=True, scale_norm=True, norm_layer=nn.LayerNorm, attn_head_dim=6)
    if "gated" in signature(Attention).parameters:  # from timm 1.0.28 on
        options["gated"] = True
    plain, layer = Attention(24, 3, **options), interactive_attention_layer(24, 3, **options)
    assert set(layer.state_dict()) - set(plain.state_dict()) == {"mix_query", "mix_key"}
    assert layer(tokens(9)).shape == (2, 9, 16)
    out = from_attention(plain, Interactive(2), init="paper")(tokens(9))
    assert out.shape == (2, 9, 16) and torch.isfinite(out).all()


def test_dropout_only_in_training():
    layer = interactive_attention_layer(24, 3, landmarks=2, attn_drop=0.5)
    x = tokens(9)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@torch.no_grad()
def test_weights_are_those_that_forward_applies():
    layer = interactive_attention_layer(24, 3, landmarks=2, num_prefix_tokens=1).double()
    layer.mix_key.add_(0.2 * torch.randn(3, 3, dtype=torch.float64))
    x = tokens(13).double()
    v = layer.qkv(x).view(2, 13, 3, 3, 8)[:, :, 2].transpose(1, 2)
    heads = layer.attention_weights(x, grid=(3, 4)) @ v
    want = layer.proj(heads.transpose(1, 2).flatten(2))
    assert_close(layer(x, grid=(3, 4)), want, OUTPUT[torch.float64])
    chosen = layer.attention_weights(x, grid=(3, 4), heads=[2], queries=[0, 5])
    assert_close(chosen, layer.attention_weights(x, grid=(3, 4))[:, 2:, [0, 5]], OUTPUT[torch.float64])


@pytest.mark.parametrize(
    ("name", "options", "prefix"),
    [
        ("vit_tiny_patch16_224", {}, 1),
        ("vit_tiny_patch16_224", dict(class_token=False, global_pool="avg"), 0),
        ("vit_small_patch16_224", dict(reg_tokens=4), 5),
        ("deit_tiny_distilled_patch16_224", {}, 2),
        ("vit_small_patch16_224", dict(qk_norm=True, init_values=1e-1), 1),
    ],
)
def test_swapped_vit_trains_everything(name, options, prefix):
    model = vit(name, **options)
    report = swap_attention(model, "imhsa", init="paper", landmarks=2)
    assert [block.attn.num_prefix_tokens for block in model.blocks] == [prefix] * 2
    assert len(report.replaced) == 2 and "Attention -> imhsa (landmarks 2" in str(report)
    model.train()
    model(images(64, 64)).sum().backward()
    assert all(block.attn.mix_key.grad.abs().max() > 0 for block in model.blocks)


@torch.no_grad()
def test_swapped_vit_knows_its_grid():
    """A 2 x 8 grid has as many tokens as a 4 x 4 one: the layer must be told, and is, after every change of size."""
    model = vit(img_size=(32, 128))
    swap_attention(model, "imhsa", init="paper", landmarks=2)
    blocks = [block.attn for block in model.blocks]
    x = tokens(17, dim=192)
    assert torch.equal(blocks[0](x), blocks[0](x, grid=(2, 8)))
    assert not torch.allclose(blocks[0](x), blocks[0](x, grid=(4, 4)))
    model.set_input_size((128, 32))
    assert torch.equal(blocks[0](x), blocks[0](x, grid=(8, 2)))
    assert model(images(128, 32)).shape == (2, 5)


@torch.no_grad()
def test_swapped_vit_of_any_size():
    model = vit(dynamic_img_size=True)
    swap_attention(model, "imhsa", init="paper", landmarks=2)
    twin = copy.deepcopy(model)
    x = tokens(17, dim=192)
    for size, grid in (((64, 64), (4, 4)), ((32, 128), (2, 8)), ((48, 80), (3, 5))):
        assert model(images(*size)).shape == (2, 5)
        assert model.blocks[0].attn.token_grid() == grid
    model(images(32, 128))
    twin(images(128, 32))  # a copy, such as a moving average, keeps its own
    assert torch.equal(model.blocks[1].attn(x), model.blocks[1].attn(x, grid=(2, 8)))
    assert torch.equal(twin.blocks[1].attn(x), twin.blocks[1].attn(x, grid=(8, 2)))


@torch.no_grad()
def test_swapped_vit_compiles_and_exports():
    model = vit(img_size=(32, 64))
    swap_attention(model, "imhsa", init="paper", landmarks=2)
    x = images(32, 64)
    want = model(x)
    assert_close(torch.compile(model, fullgraph=True, backend="eager")(x), want, OUTPUT[torch.float32])
    batch = {0: torch.export.Dim("batch", min=1, max=8)}
    program = torch.export.export(model, (x,), dynamic_shapes=(batch,)).module()
    assert_close(program(images(32, 64, batch=3)), model(images(32, 64, batch=3)), OUTPUT[torch.float32])


def test_swap_again_with_other_landmarks():
    model = vit()
    swap_attention(model, "imhsa", init="paper", landmarks=2)
    swap_attention(model, "imhsa", init="paper", landmarks=3, interaction=False)
    assert model.blocks[0].attn.interaction.landmarks == 3 and model.blocks[0].attn.mix_query is None
    assert model(images(64, 64)).shape == (2, 5)


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {}, "init='preserve' can't hold for imhsa.*pass init='paper'"),
        ({}, dict(init="paper", landmarks=0), "landmarks must be .* at least 1 .* got 0"),
        (dict(patch_drop_rate=0.5), dict(init="paper"), "wants whole grids .* patch_drop_rate=0"),
    ],
)
def test_swaps_that_cannot_be_leave_the_model_as_it_was(options, arguments, message):
    model = vit(dynamic_img_size=True, **options)
    with pytest.raises(ValueError, match=message):
        swap_attention(model, "imhsa", **arguments)
    assert all(type(block.attn) is Attention for block in model.blocks)
    assert not model.patch_embed._forward_hooks


def test_model_without_a_grid_is_named():
    with pytest.raises(ValueError, match=r"Sequential does not tell.*grid_size and dynamic_feat_size.*proj"):
        swap_attention(nn.Sequential(Attention(24, 3)), "imhsa", init="paper")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(num_heads=5), "dim 24 does not split into 5 equal heads"),
        (dict(landmarks=(3, 0)), r"landmarks must be .* got \(3, 0\)"),
        (dict(num_prefix_tokens=-1), "num_prefix_tokens must be at least 0, got -1"),
        (dict(attn_drop=1.0), r"dropout_p must lie in \[0, 1\), got 1.0"),
        (dict(qk_norm=True), "need norm_layer"),
    ],
)
def test_bad_construction_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        interactive_attention_layer(24, **(dict(num_heads=3) | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(attn_mask=torch.ones(15, 15), grid=(3, 5)), "takes no mask"),
        (dict(is_causal=True, grid=(3, 5)), "takes no mask"),
        (dict(grid=(4, 4)), "has 16 tokens, got 15"),
        ({}, r"15 tokens, 0 of them before the grid, make no square; pass grid=\(rows, columns\)"),
    ],
)
def test_bad_calls_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        interactive_attention_layer(24, 3)(tokens(15), **arguments)


def padded(count=12):
    """Two images of 3 x 4 tokens after a prefix token: one whole, half of the other padding."""
    keys = torch.ones(2, 1, 1, count + 1, dtype=torch.bool)
    keys[1, ..., 1 + 6 :] = False
    return keys


@torch.no_grad()
def test_padding_is_attended_by_nobody_and_averaged_into_no_landmark():
    """Each head and image by the equations, over the tokens that take part alone; whole cells may be padding."""
    layer = interactive_attention_layer(24, 3, landmarks=(3, 2), num_prefix_tokens=1).double()
    for mix in (layer.mix_query, layer.mix_key):
        mix.add_(0.3 * torch.randn(3, 3, dtype=torch.float64))
    x, keys = tokens(13).double(), padded()
    got = layer(x, keys, grid=(3, 4))
    for image in range(2):
        part = keys[image, 0, 0].nonzero().flatten()
        cells = [[0], *([1 + 4 * r + c for c in (c0, c0 + 1)] for r in range(3) for c0 in (0, 2))]
        cells = [kept for cell in cells if (kept := [t for t in cell if t in part])]
        q, k, v = layer.qkv(x[image]).view(13, 3, 3, 8).permute(1, 2, 0, 3)
        q_marks, k_marks = (torch.stack([y[:, cell].mean(1) for cell in cells], 1) for y in (q, k))
        a_q = (q[:, part] @ k_marks.mT * 8**-0.5).softmax(-1)
        a_k = (q_marks @ k[:, part].mT * 8**-0.5).softmax(-1)
        a_q, a_k = (
            torch.einsum("gi,inl->gnl", m, a) for m, a in ((layer.mix_query, a_q), (layer.mix_key, a_k))
        )
        want = layer.proj((a_q @ (a_k @ v[:, part])).transpose(0, 1).flatten(1))
        assert_close(got[image, part], want, OUTPUT[torch.float64])
    noise = x.clone()
    noise[1, 7:] = 1e3
    assert_close(layer(noise, keys, grid=(3, 4))[1, :7], got[1, :7], OUTPUT[torch.float64])
    weights = layer.attention_weights(x, keys, grid=(3, 4))
    assert (weights[1, :, :, 7:] == 0).all()
    whole = torch.ones_like(keys)
    assert_close(layer(x, whole, grid=(3, 4)), layer(x, grid=(3, 4)), OUTPUT[torch.float64])


def test_padding_trains():
    layer = interactive_attention_layer(24, 3, landmarks=2, num_prefix_tokens=1)
    x = tokens(13).requires_grad_()
    layer(x, padded(), grid=(3, 4))[1, :7].square().sum().backward()
    assert (x.grad[1, 7:] == 0).all() and torch.isfinite(x.grad).all()
    assert all(parameter.grad.abs().max() > 0 for parameter in layer.parameters())
    nothing = layer(tokens(13), torch.zeros(2, 1, 1, 13, dtype=torch.bool), grid=(3, 4))
    assert_close(nothing, layer.proj.bias.expand(2, 13, 24), OUTPUT[torch.float32])

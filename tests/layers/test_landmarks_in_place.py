"""Attention through landmarks where windows, biases and rotations are: Swin, MaxViT, TinyViT, BEiT, EVA, DINOv3."""

import pytest
import timm
import torch
from timm.layers import AttentionRope, RotaryEmbeddingCat, RotaryEmbeddingDinoV3
from timm.models import beit, eva, swin_transformer

from crosshead import swap_attention
from crosshead.heads import measure_heads
from crosshead.layers import Interactive, from_attention
from crosshead.layers.rotation import Rotation
from crosshead.ops.interactive import naive_interactive_attention
from crosshead.ops.interactive.arguments import Geometry
from tolerances import OUTPUT, assert_close

MODELS = {
    "swin_tiny_patch4_window7_224": dict(
        img_size=56, window_size=7, embed_dim=24, depths=(2, 2), num_heads=(3, 3)
    ),
    "swinv2_tiny_window8_256": dict(
        img_size=64, window_size=4, embed_dim=24, depths=(2, 2), num_heads=(3, 3)
    ),
    "beit_base_patch16_224": dict(img_size=64, embed_dim=24, num_heads=3, depth=2),
    "eva02_tiny_patch14_224": dict(img_size=56, embed_dim=24, num_heads=3, depth=2),
    "vit_small_patch16_dinov3": dict(img_size=64, embed_dim=48, num_heads=3, depth=2),
}


def tokens(batch, number, dim=24, seed=0):
    return torch.randn(batch, number, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MODELS)
def test_models_people_use_learn_through_landmarks(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **MODELS[name])
    report = swap_attention(model, "imhsa", init="paper", landmarks=2)
    assert len(report.replaced) >= 2
    with torch.no_grad():
        for parameter in model.parameters():  # some norms start at 0, and what is behind them silent
            parameter.add_(0.05 * torch.randn_like(parameter))
    side = MODELS[name]["img_size"]
    images = torch.randn(2, 3, side, side)
    model(images).square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert not silent
    mixes = [p.grad.abs().max() for n, p in model.named_parameters() if ".mix_" in n]
    assert len(mixes) == 2 * len(report.replaced) and min(mixes) > 0
    assert measure_heads(model.eval(), [images])
    with pytest.raises(ValueError, match="init='preserve' can't hold for imhsa"):
        swap_attention(timm.create_model(name, num_classes=3, **MODELS[name]), "imhsa")


def of_layer(layer, x):
    return layer.qkv(x).unflatten(-1, (3, 3, -1)).permute(2, 0, 3, 1, 4)


def mixes_of(layer):
    for mix in (layer.mix_query, layer.mix_key):
        mix.add_(0.3 * torch.randn(3, 3, dtype=mix.dtype))
    return dict(mix_query=layer.mix_query, mix_key=layer.mix_key)


def after(layer, out):
    return layer.proj(out.transpose(1, 2).flatten(2))


@torch.no_grad()
def test_in_shifted_windows_with_their_bias():
    torch.manual_seed(0)
    attn = swin_transformer.WindowAttention(24, 3, window_size=4)
    layer = from_attention(attn, Interactive(2), init="paper").double().eval()
    layer.relative_position_bias_table.normal_()
    place = torch.stack([torch.zeros(16), (torch.arange(16) // 4 >= 3) * 2.0 + (torch.arange(16) % 4 >= 1)])
    mask = torch.where(place[:, :, None] == place[:, None], 0.0, -100.0)
    x = tokens(4, 16).double()
    want = naive_interactive_attention(
        *of_layer(layer, x),
        (4, 4),
        landmarks=2,
        attn_mask=(mask == 0).unsqueeze(1).repeat(2, 1, 1, 1),
        attn_bias=layer._get_rel_pos_bias(),
        **mixes_of(layer),
    )
    assert_close(layer(x, mask=mask), after(layer, want), OUTPUT[torch.float64])
    assert (layer(x, mask=mask) - layer(x))[1::2].abs().max() > 1e-3
    weights = layer.attention_weights(x, mask=mask)
    assert weights.masked_select((mask < 0).unsqueeze(1).repeat(2, 1, 1, 1)).abs().max() == 0
    before = layer(x)
    layer.relative_position_bias_table.zero_()
    assert (layer(x) - before).abs().max() > 1e-3


@torch.no_grad()
def test_beside_a_class_token_with_a_bias():
    torch.manual_seed(0)
    attn = beit.Attention(24, 3, window_size=(4, 5))
    layer = from_attention(attn, Interactive((2, 3)), init="paper", num_prefix_tokens=1).double().eval()
    layer.relative_position_bias_table.normal_()
    x = tokens(2, 21).double()
    want = naive_interactive_attention(
        *of_layer(layer, x),
        (4, 5),
        landmarks=(2, 3),
        num_prefix_tokens=1,
        attn_bias=layer._get_rel_pos_bias(),
        **mixes_of(layer),
    )
    assert_close(layer(x, grid=(4, 5)), after(layer, want), OUTPUT[torch.float64])


def even_angles(rows, columns, rates):
    """Sines, then cosines, (N, 2·d), of places on a grid, as timm's: pairs of channels share an angle."""
    angles = torch.cat([rows[:, None] * rates, columns[:, None] * rates], 1).repeat_interleave(2, 1)
    return torch.cat([angles.sin(), angles.cos()], 1)


@pytest.mark.parametrize("cells", [(1, 1), (2, 3), (3, 2), (4, 5)])
def test_landmarks_are_rotated_to_the_middle_of_their_cells(cells):
    rows, columns = (
        x.flatten().double() for x in torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")
    )
    rates = torch.tensor([0.05, 1.3], dtype=torch.float64)
    found = Rotation(torch.mul, even_angles(rows, columns, rates)).of_landmarks(Geometry((4, 5), cells, 0))
    middles = [
        [(c * n // k + -(-(c + 1) * n // k) - 1) / 2 for c in range(k)]
        for n, k in zip((4, 5), cells, strict=True)
    ]
    at = torch.cartesian_prod(*(torch.tensor(m, dtype=torch.float64) for m in middles)).view(-1, 2)
    assert_close(found.angles, even_angles(at[:, 0], at[:, 1], rates), OUTPUT[torch.float64])


@torch.no_grad()
@pytest.mark.parametrize("host", [AttentionRope, eva.EvaAttention])
def test_averaged_before_they_are_rotated(host):
    torch.manual_seed(0)
    options = {} if host is AttentionRope else {"scale_norm": False}
    attn = host(24, 3, num_prefix_tokens=1, **options)
    layer = from_attention(attn, Interactive(2), init="paper", num_prefix_tokens=1).double().eval()
    rope = (
        RotaryEmbeddingCat(8, in_pixels=False, feat_shape=[5, 5], ref_feat_shape=[5, 5]).get_embed().double()
    )
    x = tokens(2, 26).double()
    turn = Rotation(
        lambda x, angles: (
            x * angles.chunk(2, -1)[1]
            + torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2) * angles.chunk(2, -1)[0]
        ),
        rope,
        prefix=1,
    )
    want = naive_interactive_attention(
        *of_layer(layer, x),
        (5, 5),
        landmarks=2,
        num_prefix_tokens=1,
        rotate=(turn, turn.of_landmarks(Geometry((5, 5), (2, 2), 1))),
        **mixes_of(layer),
    )
    assert_close(layer(x, rope=rope), after(layer, want), OUTPUT[torch.float64])
    assert (layer(x, rope=rope) - layer(x)).abs().max() > 1e-3


@torch.no_grad()
def test_logits_of_landmarks_depend_on_differences_of_positions_alone():
    torch.manual_seed(0)
    layer = from_attention(AttentionRope(24, 3, num_prefix_tokens=0), Interactive(2), init="paper").eval()
    grid = (
        RotaryEmbeddingCat(8, in_pixels=False, feat_shape=[9, 9], ref_feat_shape=[9, 9])
        .get_embed()
        .view(9, 9, -1)
    )
    x = tokens(1, 1).expand(1, 16, 24)
    here, there = (layer.attention_weights(x, rope=grid[a : a + 4, a : a + 4].flatten(0, 1)) for a in (0, 5))
    assert_close(here, there, OUTPUT[torch.float32])
    assert (here - 1 / 16).abs().max() > 1e-3


def test_the_rotation_of_dinov3_lies_halfway():
    """Cells of 2 x 2 tokens: their middles are where its own module puts the tokens of a grid half as fine."""
    module = RotaryEmbeddingDinoV3(16)
    found = Rotation(torch.mul, module.get_embed([8, 8])).of_landmarks(Geometry((8, 8), (4, 4), 0))
    assert_close(found.angles, module.get_embed([4, 4]), OUTPUT[torch.float32])


def test_a_rotation_of_which_nothing_is_known_is_refused():
    layer = from_attention(AttentionRope(24, 3, num_prefix_tokens=0), Interactive(2), init="paper")
    heads = layer.heads_of(tokens(1, 16))
    heads.rotate = torch.clone
    with pytest.raises(ValueError, match=r"must bring a crosshead\.layers\.rotation\.Rotation"):
        layer.interaction.attend(layer, heads)


def test_compiled_in_one_graph():
    layer = from_attention(
        swin_transformer.WindowAttention(24, 3, window_size=4), Interactive(2), init="paper"
    )
    mask = torch.zeros(2, 16, 16)
    mask[1, :8, 8:] = mask[1, 8:, :8] = -100.0
    x = tokens(4, 16)
    compiled = torch.compile(layer.eval(), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert_close(compiled(x, mask=mask), layer(x, mask=mask), OUTPUT[torch.float32])

"""Interleaved heads in models: an exact start, pseudo-heads that part from one another, and what looks into them."""

import pytest
import timm
import torch
from timm.layers import Attention, AttentionRope
from timm.models.swin_transformer import WindowAttention
from torch import nn

from crosshead import swap_attention
from crosshead.heads import measure_heads
from crosshead.layers import INTERACTIONS, from_attention
from crosshead.ops.iha import interleaved_attention_weights, naive_interleaved_attention
from tolerances import OUTPUT, assert_close

Interleaved = INTERACTIONS["iha"]
MASK = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0)) > 0.5


def tokens(batch=2, number=9, dim=24, seed=0):
    return torch.randn(batch, number, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("attn", "call"),
    [
        (Attention(24, 3, qkv_bias=True, qk_norm=True, norm_layer=nn.LayerNorm), {}),
        (Attention(24, 3), dict(is_causal=True)),
        (Attention(24, 3), dict(attn_mask=MASK)),
        (Attention(24, 1), {}),
        (WindowAttention(24, 3, window_size=3), dict(mask=torch.randn(2, 9, 9))),
    ],
    ids=["normed", "causal", "masked", "one head", "shifted"],
)
def test_preserved_and_every_parameter_learns(attn, call, count):
    layer = from_attention(attn, Interleaved(count))
    want, got = attn(tokens(), **call), layer(tokens(), **call)
    assert_close(got, want, OUTPUT[torch.float32])
    (got * tokens(seed=3)).sum().backward()
    for name in Interleaved.learned:
        grad = getattr(layer, name).grad
        assert (grad.abs() > 0).all(), name


def test_pseudo_heads_part_from_one_another():
    """Equal ones would get equal gradients for ever; after two steps no two are alike in anything."""
    torch.manual_seed(0)
    layer = from_attention(Attention(24, 3), Interleaved(2))
    optimizer = torch.optim.SGD([getattr(layer, name) for name in Interleaved.learned], lr=0.1)
    start = {name: getattr(layer, name).detach().clone() for name in Interleaved.learned}
    for step in range(2):
        optimizer.zero_grad()
        (layer(tokens(seed=step)) * tokens(seed=3)).sum().backward()
        optimizer.step()
    for name, before in start.items():
        moved = getattr(layer, name).detach() - before
        assert (moved[..., 0] - moved[..., 1]).abs().max() > 1e-4, name


@torch.no_grad()
def test_layer_is_projections_around_the_equations():
    layer = from_attention(Attention(24, 3, qkv_bias=True), Interleaved(2)).double()
    mixes = [getattr(layer, name) for name in Interleaved.learned]
    for mix in mixes:
        mix.add_(0.3 * torch.randn(mix.shape, dtype=mix.dtype))
    x = tokens().double()
    q, k, v = layer.qkv(x).view(2, 9, 3, 3, 8).permute(2, 0, 3, 1, 4)
    want = naive_interleaved_attention(q, k, v, *mixes, attn_mask=MASK)
    got = layer(x, attn_mask=MASK)
    assert_close(got, layer.proj(want.transpose(1, 2).flatten(2)), OUTPUT[torch.float64])
    weights = interleaved_attention_weights(q, k, *mixes, attn_mask=MASK)
    assert_close(layer.attention_weights(x, attn_mask=MASK), weights, OUTPUT[torch.float64])


@torch.no_grad()
def test_heads_that_rotate_each_its_own_way_are_mixed_before_they_rotate():
    """All tokens alike: then logits come of positions alone, and of nothing but their differences."""
    torch.manual_seed(0)
    angles = torch.rand(3, 1, 4) * torch.arange(20).view(1, -1, 1)  # a head's own frequencies
    rope = torch.cat([angles.sin().repeat_interleave(2, -1), angles.cos().repeat_interleave(2, -1)], -1)
    layer = from_attention(AttentionRope(24, 3, num_prefix_tokens=0), Interleaved(2))
    for name in Interleaved.learned:
        getattr(layer, name).normal_()
    x = torch.randn(1, 1, 24).expand(1, 9, 24)
    here, there = (layer.attention_weights(x, rope=rope[:, at : at + 9]) for at in (0, 7))
    assert_close(here, there, OUTPUT[torch.float32])
    assert (here[:, :, 0] - here[:, :, 4]).abs().max() > 1e-2


def test_in_a_model_with_all_that_looks_into_heads():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2, num_classes=3).eval()
    images = torch.randn(2, 3, 48, 48)
    want = model(images)
    report = swap_attention(model, "iha", pseudo_heads=2)
    assert "pseudo_heads 2" in str(report)
    assert_close(model(images), want, OUTPUT[torch.float32])
    measured = measure_heads(model, [images])
    assert len(measured) == 2
    with torch.no_grad():
        weights = model.blocks[0].attn.attention_weights(torch.randn(1, 10, 192))
    assert_close(weights.sum(-1), torch.ones(1, 3, 10), OUTPUT[torch.float32])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_close(compiled(images), want, OUTPUT[torch.float32])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="pseudo_heads must be at least 1, got 0"):
        Interleaved(0)
    with pytest.raises(ValueError, match="pseudo_heads must be a whole number, got '2'"):
        Interleaved("2")
    layer = from_attention(Attention(24, 3), Interleaved(2))
    with pytest.raises(ValueError, match=r"interact already .*interleave_query.* has no place there"):
        from_attention(layer, Interleaved(3))

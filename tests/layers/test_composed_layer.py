"""Dynamically composable heads in a model: they start as what was there, and learn from the first step on."""

import pytest
import torch
from timm.layers import Attention
from timm.models.cait import TalkingHeadAttn
from timm.models.swin_transformer import WindowAttention
from torch import nn

from crosshead.layers import INTERACTIONS, from_attention
from tolerances import OUTPUT, assert_close

Composed = INTERACTIONS["dcmha"]
MASK = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0)) > 0.5


def tokens(batch=2, number=9, dim=24, seed=0):
    return torch.randn(batch, number, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("attn", "call"),
    [
        (Attention(24, 3, qkv_bias=True, qk_norm=True, norm_layer=nn.LayerNorm), {}),
        (Attention(24, 3, scale_norm=True, norm_layer=nn.LayerNorm), dict(is_causal=True)),
        (Attention(24, 3), dict(attn_mask=MASK, is_causal=False)),
        (Attention(24, 1), {}),
        (WindowAttention(24, 3, window_size=3), {}),
        (WindowAttention(24, 3, window_size=3), dict(mask=torch.randn(2, 9, 9))),
    ],
    ids=["normed", "causal", "masked", "one head", "windows", "shifted"],
)
def test_preserved_and_every_parameter_learns(attn, call):
    torch.manual_seed(0)
    layer = from_attention(attn, Composed())
    want, got = attn(tokens(), **call), layer(tokens(), **call)
    assert_close(got, want, OUTPUT[torch.float32])
    (got * tokens(seed=3)).sum().backward()
    for name, parameter in layer.named_parameters():
        # A shift of all of a query's logits changes nothing, so some norms' biases have no gradient but rounding.
        assert name in ("k_norm.bias", "qkv.bias") or parameter.grad.abs().max() > 0, name


def test_both_factors_at_zero_would_never_learn():
    """Why W2 does not start at zero as a whole: a product of two zeros has no gradient."""
    layer = from_attention(Attention(24, 3), Composed())
    with torch.no_grad():
        layer.compose_factors.zero_()
    (layer(tokens()) * tokens(seed=3)).sum().backward()
    assert layer.compose_factors.grad.abs().max() == 0 and layer.compose_hidden.grad.abs().max() == 0


@torch.no_grad()
@pytest.mark.parametrize("static", [True, False])
def test_weights_are_those_that_meet_the_values(static):
    torch.manual_seed(1)
    layer = from_attention(Attention(24, 3), Composed(rank=1, hidden=5, static=static), init="paper").eval()
    for name in Composed.learned:
        if getattr(layer, name) is not None:
            getattr(layer, name).normal_(std=0.3)
    assert static == (layer.compose_pre is not None)
    whole = layer.attention_weights(tokens(), attn_mask=MASK)
    some = layer.attention_weights(tokens(), attn_mask=MASK, heads=[2, 0], queries=[8, 1])
    assert_close(some, whole[:, [2, 0]][:, :, [8, 1]], OUTPUT[torch.float32])
    v = layer.qkv(tokens())[..., 48:].unflatten(-1, (3, 8)).transpose(1, 2)
    want = layer.proj((whole @ v).transpose(1, 2).flatten(2))
    assert_close(layer(tokens(), attn_mask=MASK), want, OUTPUT[torch.float32])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="dcmha can't carry talking heads, which TalkingHeadAttn brings"):
        from_attention(TalkingHeadAttn(24, 3), Composed())
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        Composed(rank=0)
    with pytest.raises(ValueError, match="hidden must be at least 2, got 1"):
        Composed(hidden=1)
    with pytest.raises(ValueError, match="rank must be at least 1, got '2'"):
        Composed(rank="2")


def test_swapped_again_it_keeps_what_it_learned():
    layer = from_attention(Attention(24, 3), Composed(), init="paper")
    again = from_attention(layer, Composed(), init="paper")
    assert torch.equal(layer(tokens()), again(tokens()))
    back = again.restored()
    assert type(back) is Attention and set(back.state_dict()) == set(Attention(24, 3).state_dict())


@pytest.mark.parametrize("other", [dict(rank=3), dict(hidden=5), dict(static=False)], ids=str)
def test_what_it_learned_is_not_lost_in_silence(other):
    layer = from_attention(Attention(24, 3), Composed(), init="paper")
    with pytest.raises(ValueError, match=r"its heads interact already .*compose_.* has no place there"):
        from_attention(layer, Composed(**other))
    from_attention(layer, Composed(**other), init="paper")
    # Something more beside what there was: that can be.
    without = from_attention(Attention(24, 3), Composed(static=False), init="paper")
    assert_close(from_attention(without, Composed())(tokens()), without(tokens()), OUTPUT[torch.float32])

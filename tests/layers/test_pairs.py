"""Hosts and interactions apart: what is registered meets what is registered, and what can't be is named."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from timm.layers import Attention
from timm.models.cait import TalkingHeadAttn
from timm.models.swin_transformer import WindowAttention
from torch import nn

from crosshead import register_host, register_interaction, swap_attention
from crosshead.layers import (
    HOSTS,
    INTERACTIONS,
    Capability,
    Heads,
    InteractingAttention,
    Interaction,
    Interactive,
    Overlap,
    Talking,
    from_attention,
)
from tolerances import OUTPUT, assert_close


def tokens(batch=2, number=9, dim=24, seed=0):
    return torch.randn(batch, number, dim, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Louder(Interaction):
    """Every head adds a learned share of all heads' mean to its output."""

    kind: ClassVar[str] = "louder"
    learned: ClassVar[tuple[str, ...]] = ("share",)

    start: float = 0.0

    def prepare(self, layer, *, preserve):
        layer.share = nn.Parameter(torch.full((layer.num_heads, 1), self.start))

    def attend(self, layer, heads):
        out = nn.functional.scaled_dot_product_attention(*heads.split(), scale=heads.scale).transpose(1, 2)
        return (out + layer.share * out.mean(2, keepdim=True)).flatten(2)


class OneProjection(nn.Module):
    """Somebody's attention: queries are keys are values."""

    def __init__(self):
        super().__init__()
        self.heads, self.width = 3, 8
        self.read_all, self.write_all = nn.Linear(24, 24), nn.Linear(24, 24)

    def forward(self, x):
        heads = self.read_all(x).unflatten(-1, (3, 8)).transpose(1, 2)
        out = nn.functional.scaled_dot_product_attention(heads, heads, heads)
        return self.write_all(out.transpose(1, 2).flatten(2))


class OneProjectionHost(InteractingAttention, OneProjection):
    projection = "write_all"

    @classmethod
    def sizes(cls, attn):
        return attn.heads, attn.width

    def read(self, x):
        heads = self.read_all(x).unflatten(-1, (3, 8))
        return Heads(x, heads, heads, heads, self.head_dim**-0.5)

    def write(self, out, heads):
        return self.write_all(out)


@pytest.fixture
def registered():
    """Both, and afterwards neither."""
    register_interaction(Louder)
    register_host(OneProjection, OneProjectionHost)
    yield
    del INTERACTIONS["louder"], HOSTS[OneProjection]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("attention", [OneProjection, lambda: Attention(24, 3)], ids=["theirs", "timms"])
@pytest.mark.parametrize("kind", ["louder", "overlap", "talking"])
def test_what_others_register_meets_all_there_is(kind, attention):
    model = nn.Sequential(attention()).eval()
    want = model(tokens())
    report = swap_attention(model, kind)
    assert_close(model(tokens()), want, OUTPUT[torch.float32])
    assert report.kind == model[0].interaction.kind == kind
    model(tokens()).square().sum().backward()


def test_registering_twice_or_wrongly_is_refused():
    assert register_interaction(Overlap) is Overlap  # the same class again changes nothing
    clash = dataclass(frozen=True)(type("Clash", (Interaction,), {"kind": "overlap"}))
    with pytest.raises(ValueError, match="interaction 'overlap' is registered already"):
        register_interaction(clash)
    with pytest.raises(ValueError, match="OneProjectionHost must derive from Linear"):
        register_host(nn.Linear, OneProjectionHost)
    with pytest.raises(ValueError, match="Attention has the host PlainHost"):
        register_host(Attention, OneProjectionHost)


@pytest.mark.parametrize(
    ("attn", "interaction", "message"),
    [
        (
            TalkingHeadAttn(24, 3),
            Interactive(2),
            "imhsa can't carry talking heads, which TalkingHeadAttn brings",
        ),
        (nn.Linear(24, 24), Overlap(2), "no host for attention of class Linear; there are hosts for timm"),
    ],
)
def test_a_pair_that_cannot_be_is_named(attn, interaction, message):
    with pytest.raises(ValueError, match=message):
        from_attention(attn, interaction, init="paper")


@pytest.mark.usefixtures("registered")
def test_a_grid_that_no_host_brings_is_named():
    with pytest.raises(ValueError, match="imhsa needs grid, which OneProjection does not"):
        from_attention(OneProjection(), Interactive(2), init="paper")


def test_an_option_that_is_none_is_named_with_the_options():
    model = nn.Sequential(Attention(24, 3))
    with pytest.raises(
        ValueError, match=r"'overlap' has no option 'overlp'; did you mean 'overlap'\? it takes overlap"
    ):
        swap_attention(model, overlp=2)
    with pytest.raises(
        ValueError, match="mode must be one of auto, chunked, full_width, triton, math, got 'fast'"
    ):
        swap_attention(model, "talking", mode="fast")


def test_a_grid_is_an_offer_and_not_a_burden():
    assert Capability.GRID in HOSTS[Attention].brings(Attention(24, 3))
    from_attention(Attention(24, 3), Overlap(2))


@pytest.mark.parametrize("overlap", [0, 3])
@pytest.mark.parametrize(
    ("attn", "call"),
    [
        (Attention(24, 3, qkv_bias=True), {}),
        (Attention(24, 3), dict(is_causal=True)),
        (
            Attention(24, 3),
            dict(attn_mask=torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0)) > 0.5),
        ),
        (WindowAttention(24, 3, window_size=3), {}),
        (WindowAttention(24, 3, window_size=3), dict(mask=torch.randn(2, 9, 9))),
        (TalkingHeadAttn(24, 3), {}),
    ],
    ids=["plain", "causal", "masked", "windows", "shifted", "cait"],
)
def test_talking_heads_start_as_what_was_there(attn, call, overlap):
    torch.manual_seed(0)
    layer = from_attention(attn, Talking(overlap))
    want, got = attn(tokens(), **call), layer(tokens(), **call)
    assert_close(got, want, OUTPUT[torch.float32])
    (got * tokens(seed=3)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert name == "proj_l.bias" or parameter.grad.abs().max() > 0, name


@torch.no_grad()
@pytest.mark.parametrize("interaction", [Overlap(2), Talking(), Talking(3), Interactive(2)], ids=str)
@pytest.mark.parametrize(
    "attn", [Attention(24, 3), WindowAttention(24, 3, window_size=3)], ids=["plain", "windows"]
)
def test_weights_are_those_that_meet_the_values(attn, interaction):
    """Chosen rows are rows of the whole, and the whole times V is what the projection gets."""
    layer = from_attention(attn, interaction, init="paper").eval()
    for name in interaction.learned:
        if isinstance(part := getattr(layer, name, None), nn.Module | nn.Parameter):
            for parameter in [part] if isinstance(part, nn.Parameter) else part.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    whole = layer.attention_weights(tokens())
    assert whole.shape == (2, 3, 9, 9)
    some = layer.attention_weights(tokens(), heads=[2, 0], queries=[8, 1, 4])
    assert_close(some, whole[:, [2, 0]][:, :, [8, 1, 4]], OUTPUT[torch.float32])
    v = tokens(seed=5) @ layer.qkv.weight[48:].mT + (0 if layer.qkv.bias is None else layer.qkv.bias[48:])
    width = interaction.head_width(8)
    side = (width - 8) // 2
    v = nn.functional.pad(v, (side, side)).unfold(-1, width, 8).transpose(1, 2)
    weights = layer.attention_weights(tokens(seed=5))
    want = layer.proj((weights @ v).transpose(1, 2).flatten(2))
    assert_close(layer(tokens(seed=5)), want, OUTPUT[torch.float32])


def test_restored_attention_is_the_old_one():
    attn = Attention(24, 3)
    for interaction in (Overlap(3), Talking(2), Talking()):
        back = from_attention(attn, interaction).restored()
        assert type(back) is Attention and list(back.state_dict()) == list(attn.state_dict())
        assert torch.equal(back(tokens()), attn(tokens()))
    cait = TalkingHeadAttn(24, 3)
    assert list(from_attention(cait, Talking(2)).restored().state_dict()) == list(cait.state_dict())


def test_another_overlap_keeps_what_was_learned_of_the_channels_that_stay():
    layer = from_attention(Attention(24, 3), Overlap(2))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    wider = from_attention(layer, Overlap(5))
    assert_close(wider(tokens()), layer(tokens()), OUTPUT[torch.float32])
    with pytest.raises(ValueError, match=r"interact already \(overlap, overlap 5\), .* they borrow less"):
        from_attention(wider, Overlap(2))
    back = from_attention(wider, Overlap(2), init="paper")
    assert torch.equal(back.proj.weight, layer.proj.weight) and torch.equal(
        back.borrow_gain, layer.borrow_gain
    )
    whole = from_attention(Attention(24, 3), Overlap(2), init="paper")  # without gains, which are then 1
    assert_close(from_attention(whole, Overlap(5))(tokens()), whole(tokens()), OUTPUT[torch.float32])

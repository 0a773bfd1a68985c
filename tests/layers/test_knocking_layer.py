"""Knocking heads in a model: the identity at the start, folded into the projection wherever that can be."""

import pytest
import torch
from timm.layers import Attention
from timm.models.cait import TalkingHeadAttn
from timm.models.swin_transformer import WindowAttention
from torch import nn

from crosshead import swap_attention
from crosshead.layers import INTERACTIONS, from_attention
from crosshead.layers.interactions.knocking import fold_knocking
from crosshead.ops.knocking import naive_gated_values, naive_knock
from tolerances import GRADIENT, OUTPUT, assert_close


def packed_naive_knock(heads, matrices):
    """Of heads (B, N, 3, h, d)."""
    return torch.stack(
        [x.transpose(1, 2) for x in naive_knock(*heads.permute(2, 0, 3, 1, 4), matrices)], dim=2
    )


Knocking = INTERACTIONS["knocking"]


def tokens(batch=2, number=9, dim=24, seed=0):
    return torch.randn(batch, number, dim, generator=torch.Generator().manual_seed(seed))


def stirred(layer):
    with torch.no_grad():
        for name in Knocking.learned:
            if getattr(layer, name) is not None:
                noise = torch.randn(getattr(layer, name).shape, generator=torch.Generator().manual_seed(1))
                getattr(layer, name).add_(0.3 * noise)
    return layer


def as_written(layer, x):
    """Equations 5 to 9 on the heads, then plain attention."""
    heads = nn.functional.linear(x, layer.qkv.weight, layer.qkv.bias).unflatten(-1, (3, 3, 8))
    if layer.knock is not None:
        heads = packed_naive_knock(heads, layer.knock)
    q, k, v = heads.permute(2, 0, 3, 1, 4)
    if layer.knock is None:
        v = naive_gated_values(v, layer.knock_up, layer.knock_gate, layer.knock_down)
    out = torch.softmax(q @ k.mT * 8**-0.5, dim=-1) @ v
    return layer.proj(out.transpose(1, 2).flatten(2))


class LowRank(nn.Linear):
    """A linear layer with something beside it, as adapters have it."""

    def forward(self, x):
        return super().forward(x) + x.mean(-1, keepdim=True)


@pytest.mark.parametrize("form", ["linear", "gated"])
@pytest.mark.parametrize(
    ("attn", "call"),
    [
        (Attention(24, 3, qkv_bias=True, qk_norm=True, norm_layer=nn.LayerNorm), {}),
        (Attention(24, 3, scale_norm=True, norm_layer=nn.LayerNorm), dict(is_causal=True)),
        (TalkingHeadAttn(24, 3), {}),
        (WindowAttention(24, 3, window_size=3), dict(mask=torch.randn(2, 9, 9))),
    ],
    ids=["normed", "causal", "cait", "shifted"],
)
def test_preserved_and_every_parameter_learns(attn, call, form):
    layer = from_attention(attn, Knocking(form))
    want, got = attn(tokens(), **call), layer(tokens(), **call)
    assert_close(got, want, OUTPUT[torch.float32])
    (got * tokens(seed=3)).sum().backward()
    for name in Knocking.learned:
        assert getattr(layer, name) is None or getattr(layer, name).grad.abs().max() > 0, name


@pytest.mark.parametrize("form", ["linear", "gated"])
def test_is_what_the_equations_say(form):
    layer = stirred(from_attention(Attention(24, 3, qkv_bias=True), Knocking(form)))
    got, want = layer(tokens()), as_written(layer, tokens())
    assert_close(got, want, OUTPUT[torch.float32])
    parameters = [p for p in layer.parameters() if p.requires_grad]
    grads, wants = (torch.autograd.grad(y, parameters, tokens(seed=4)) for y in (got, want))
    for g, w in zip(grads, wants, strict=True):
        assert_close(g, w, GRADIENT[torch.float32])


def test_a_projection_that_is_more_than_linear_is_called():
    """Adapters and hooks see their call; the matrices act on what comes out of it."""
    attn = Attention(24, 3)
    attn.qkv = LowRank(24, 72)
    layer = stirred(from_attention(attn, Knocking()))
    heads = packed_naive_knock(attn.qkv(tokens()).unflatten(-1, (3, 3, 8)), layer.knock)
    assert_close(layer.packed(tokens()), heads, OUTPUT[torch.float32])

    layer, seen = stirred(from_attention(Attention(24, 3), Knocking())), []
    folded = layer(tokens())
    layer.qkv.register_forward_hook(lambda *call: seen.append(call))
    assert_close(layer(tokens()), folded, OUTPUT[torch.float32])
    assert len(seen) == 1


def test_a_host_without_one_projection():
    class Apart(type(from_attention(Attention(24, 3), Knocking()))):
        in_projection = None

        def packed(self, x):
            return self.qkv(x).unflatten(-1, (3, 3, 8))

    layer = stirred(from_attention(Attention(24, 3), Knocking()))
    want = layer(tokens())
    layer.__class__ = Apart
    assert_close(layer(tokens()), want, OUTPUT[torch.float32])


@torch.no_grad()
def test_weights_are_those_that_meet_the_values():
    layer = stirred(from_attention(Attention(24, 3), Knocking()))
    whole = layer.attention_weights(tokens())
    assert_close(whole.sum(-1), torch.ones(2, 3, 9), OUTPUT[torch.float32])
    some = layer.attention_weights(tokens(), heads=[2, 0], queries=[8, 1])
    assert_close(some, whole[:, [2, 0]][:, :, [8, 1]], OUTPUT[torch.float32])
    v = layer.packed(tokens())[:, :, 2].transpose(1, 2)
    assert_close(layer(tokens()), layer.proj((whole @ v).transpose(1, 2).flatten(2)), OUTPUT[torch.float32])


def test_under_autocast_and_swapped_back():
    layer = stirred(from_attention(Attention(24, 3), Knocking()))
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(layer(tokens()), layer.double()(tokens().double()).bfloat16(), OUTPUT[torch.bfloat16])
    back = layer.restored()
    assert type(back) is Attention and set(back.state_dict()) == set(Attention(24, 3).state_dict())


def test_folded_for_inference_it_is_the_old_module_again():
    model = nn.Sequential(Attention(24, 3, qkv_bias=True), Attention(24, 3)).eval()
    swap_attention(model, "knocking")
    stirred(model[0]), stirred(model[1])
    want, keys = model(tokens()), [type(m) for m in nn.Sequential(Attention(24, 3)).modules()][1:]
    assert fold_knocking(model) == ["0", "1"]
    assert [type(m) for m in model[1].modules()] == keys
    assert_close(model(tokens()), want, OUTPUT[torch.float32])
    with pytest.raises(ValueError, match="Sequential holds no knocking heads to fold"):
        fold_knocking(model)
    swap_attention(model, "knocking", form="gated", blocks=[1])
    swap_attention(model, "knocking", blocks=[0])
    with pytest.raises(ValueError, match="1: the gated form can't be folded"):
        fold_knocking(model)
    assert model[0].interaction.kind == "knocking"  # nothing was put back


def test_another_form_does_not_lose_what_was_learned_in_silence():
    layer = stirred(from_attention(Attention(24, 3), Knocking()))
    with pytest.raises(ValueError, match="what knock learned has no place there; keep the options, or pass"):
        from_attention(layer, Knocking("gated"))


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match="form must be one of linear, gated, got 'mlp'"):
        Knocking("mlp")

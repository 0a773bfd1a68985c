"""overlapped_talking_head_attention_layer: a drop-in for timm's TalkingHeadAttn."""

import pytest
import torch
from timm.models.cait import TalkingHeadAttn

from crosshead.layers import Overlap, from_attention, overlapped_talking_head_attention_layer
from crosshead.ops.talking import naive_talking_heads_attention
from packed import of_packed
from tolerances import GRADIENT, OUTPUT, assert_close


def tokens(batch=2, number=7, dim=24, seed=0):
    return torch.randn(batch, number, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_without_overlap_it_is_timms_attention(qkv_bias):
    theirs = TalkingHeadAttn(24, 3, qkv_bias=qkv_bias)
    ours = overlapped_talking_head_attention_layer(24, 3, qkv_bias=qkv_bias)
    ours.load_state_dict(theirs.state_dict())
    x, y = tokens().requires_grad_(), tokens().requires_grad_()
    want, got = theirs(x), ours(y)
    assert_close(got, want, OUTPUT[torch.float32])
    want.backward(tokens(seed=3))
    got.backward(tokens(seed=3))
    assert_close(y.grad, x.grad, GRADIENT[torch.float32])
    for (name, mine), parameter in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if name == "proj_l.bias":  # the softmax cancels it; theirs is what rounding leaves
            assert (mine.grad == 0).all()
        else:
            assert_close(mine.grad, parameter.grad, GRADIENT[torch.float32], name)


def test_forward_is_projection_operator_projection():
    layer = overlapped_talking_head_attention_layer(24, 3, qkv_bias=True, overlap=3)
    qkv = layer.qkv(tokens()).view(2, 7, 3, 3, 8)
    mixing = (layer.proj_l.weight, layer.proj_l.bias, layer.proj_w.weight, layer.proj_w.bias)
    want = layer.proj(of_packed(naive_talking_heads_attention)(qkv, *mixing, overlap=3))
    assert_close(layer(tokens()), want, OUTPUT[torch.float32])


@pytest.mark.parametrize("overlap", [0, 1, 8])
def test_preserve_gives_the_same_outputs_and_every_parameter_a_gradient(overlap):
    attn = TalkingHeadAttn(24, 3, qkv_bias=True)
    layer = from_attention(attn, Overlap(overlap), init="preserve")
    got = layer(tokens())
    assert_close(got, attn(tokens()), OUTPUT[torch.float32])
    (got * tokens(seed=3)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert name == "proj_l.bias" or parameter.grad.abs().max() > 0, name


def test_paper_form_has_no_gains_and_keeps_the_heads_own_columns():
    attn = TalkingHeadAttn(24, 3)
    layer = from_attention(attn, Overlap(2), init="paper")
    assert layer.borrow_gain is None
    own = layer.proj.weight.unflatten(1, (3, 12))[..., 2:10].flatten(1)
    assert torch.equal(own, attn.proj.weight)


def test_dropout_acts_in_training_only():
    layer = overlapped_talking_head_attention_layer(24, 3, attn_drop=0.5, overlap=2)
    torch.manual_seed(0)
    assert not torch.equal(layer(tokens()), layer(tokens()))
    layer.eval()
    assert torch.equal(layer(tokens()), layer(tokens()))


def test_attention_weights_give_the_output():
    layer = overlapped_talking_head_attention_layer(24, 3, overlap=0)
    weights = layer.attention_weights(tokens())
    v = layer.qkv(tokens()).view(2, 7, 3, 3, 8)[:, :, 2].transpose(1, 2)
    want = layer.proj((weights @ v).transpose(1, 2).flatten(2))
    assert_close(layer(tokens()), want, OUTPUT[torch.float32])


def test_mode_is_the_callers():
    chunked = overlapped_talking_head_attention_layer(24, 3, overlap=2, mode="chunked")
    full_width = overlapped_talking_head_attention_layer(24, 3, overlap=2, mode="full_width")
    full_width.load_state_dict(chunked.state_dict())
    assert_close(full_width(tokens()), chunked(tokens()), OUTPUT[torch.float32])


def test_autocast():
    layer = overlapped_talking_head_attention_layer(24, 3, overlap=2)
    want = layer(tokens())
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(tokens())
    assert got.dtype == torch.bfloat16
    assert_close(got, want, OUTPUT[torch.bfloat16])
    got.float().sum().backward()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(dim=24, num_heads=5), "24 does not split into 5 equal heads"),
        (dict(dim=24, num_heads=3, overlap=9), "between 0 and the head width 8, got 9"),
        (dict(dim=24, num_heads=3, proj_drop=1.5), r"\[0, 1\), got 1.5"),
        (
            dict(dim=24, num_heads=3, mode="fast"),
            "one of auto, chunked, full_width, triton, math, got 'fast'",
        ),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        overlapped_talking_head_attention_layer(**arguments)(tokens())

"""overlapped_window_attention_layer: a drop-in for timm's WindowAttention."""

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention

from crosshead.layers import Overlap, from_attention, overlapped_window_attention_layer
from crosshead.ops.overlap import naive_overlapped_attention
from packed import of_packed
from tolerances import GRADIENT, OUTPUT, assert_close

MASK = SwinTransformerBlock(24, (8, 12), num_heads=3, window_size=4, shift_size=2).attn_mask


def windows(batch=12, number=16, dim=24, seed=0):
    """Two images of 8 x 12 tokens, cut into six windows of 4 x 4 each."""
    return torch.randn(batch, number, dim, generator=torch.Generator().manual_seed(seed))


def create(**options):
    return overlapped_window_attention_layer(24, 3, window_size=4, **options)


@pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "shifted"])
@pytest.mark.parametrize("options", [{}, dict(qkv_bias=False), dict(head_dim=6)], ids=str)
def test_without_overlap_it_is_timms_attention(options, mask):
    theirs = WindowAttention(24, 3, window_size=4, **options)
    ours = create(**options)
    ours.load_state_dict(theirs.state_dict())
    x, y = windows().requires_grad_(), windows().requires_grad_()
    want, got = theirs(x, mask), ours(y, mask)
    assert_close(got, want, OUTPUT[torch.float32])
    want.backward(windows(seed=3))
    got.backward(windows(seed=3))
    assert_close(y.grad, x.grad, GRADIENT[torch.float32])
    for (name, mine), parameter in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_close(mine.grad, parameter.grad, GRADIENT[torch.float32], name)


@pytest.mark.parametrize("differentiable", [False, True])
def test_no_windows_give_no_output(differentiable):
    with torch.set_grad_enabled(differentiable):
        assert create(overlap=3)(windows()[:0]).shape == (0, 16, 24)


def test_forward_is_projection_operator_projection():
    layer = create(overlap=3)
    qkv = layer.qkv(windows()).view(12, 16, 3, 3, 8)
    bias = (layer._get_rel_pos_bias() + MASK.unsqueeze(1)).repeat(2, 1, 1, 1)
    want = layer.proj(of_packed(naive_overlapped_attention)(qkv, 3, attn_mask=bias))
    assert_close(layer(windows(), MASK), want, OUTPUT[torch.float32])


def test_mask_parts_the_window():
    """Tokens that the shift brought together from both ends of the image don't see each other."""
    layer = create(overlap=3).eval()
    moved = windows()
    moved[:, 0] += 1.0
    change = (layer(moved, MASK) - layer(windows(), MASK)).abs().amax(-1)
    apart = (MASK[:, :, 0] < 0).repeat(2, 1)
    assert apart.any() and (change[apart] == 0).all() and (change[~apart] > 0).all()


@pytest.mark.parametrize("overlap", [0, 1, 8])
def test_preserve_gives_the_same_outputs_and_every_parameter_a_gradient(overlap):
    attn = WindowAttention(24, 3, window_size=4)
    layer = from_attention(attn, Overlap(overlap), init="preserve")
    got = layer(windows(), MASK)
    assert_close(got, attn(windows(), MASK), OUTPUT[torch.float32])
    (got * windows(seed=3)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_set_window_size_resamples_the_bias_as_timm_does():
    theirs = WindowAttention(24, 3, window_size=4)
    ours = from_attention(theirs, Overlap(2), init="preserve")
    for layer in (theirs, ours):
        layer.set_window_size((3, 6))
    x = windows(4, 18)
    assert_close(ours(x), theirs(x), OUTPUT[torch.float32])


def test_dropout_acts_in_training_only():
    layer = create(attn_drop=0.5, overlap=2)
    torch.manual_seed(0)
    assert not torch.equal(layer(windows()), layer(windows()))
    layer.eval()
    assert torch.equal(layer(windows()), layer(windows()))


def test_attention_weights_of_the_layer():
    weights = create(overlap=2).attention_weights(windows(), MASK)
    assert weights.shape == (12, 3, 16, 16)
    assert_close(weights.sum(-1), torch.ones(12, 3, 16), OUTPUT[torch.float32])
    parted = (MASK < 0).repeat(2, 1, 1).unsqueeze(1).expand_as(weights)
    assert weights[parted].max() < 1e-30 < weights[~parted].min()


def test_autocast():
    layer = create(overlap=2)
    want = layer(windows(), MASK)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(windows(), MASK)
    assert got.dtype == torch.bfloat16
    assert_close(got, want, OUTPUT[torch.bfloat16])
    got.float().sum().backward()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(dim=24, num_heads=5), "24 does not split into 5 equal heads"),
        (dict(dim=24, num_heads=3, overlap=9), "between 0 and the head width 8, got 9"),
        (dict(dim=24, num_heads=3, attn_drop=1.5), r"\[0, 1\), got 1.5"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        overlapped_window_attention_layer(**arguments)


def test_windows_of_another_size():
    with pytest.raises(ValueError, match=r"bias must be .* = \(3, 9, 9\), got \(3, 16, 16\)"):
        create(overlap=2)(windows(12, 9))

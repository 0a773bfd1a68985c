"""overlapped_attention_layer: a drop-in for timm's Attention."""

import pytest
import torch
from timm.layers import Attention
from torch import nn

from compilers import COMPILERS
from crosshead.layers import Overlap, from_attention, overlapped_attention_layer
from crosshead.ops.overlap import naive_overlapped_attention
from packed import of_packed
from tolerances import GRADIENT, OUTPUT, assert_close


def tokens(batch=2, number=7, dim=24, seed=0):
    return torch.randn(batch, number, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "options", [{}, dict(qkv_bias=True, proj_bias=False), dict(attn_head_dim=6, dim_out=10)]
)
@pytest.mark.parametrize("qk_norm", [False, True])
def test_without_overlap_it_is_timms_attention(options, qk_norm):
    options = dict(options, qk_norm=qk_norm, norm_layer=nn.LayerNorm)
    theirs, ours = Attention(24, 3, **options), overlapped_attention_layer(24, 3, overlap=0, **options)
    ours.load_state_dict(theirs.state_dict())
    mask = torch.rand(2, 1, 7, 7, generator=torch.Generator().manual_seed(1)) > 0.3
    mask |= torch.eye(7, dtype=torch.bool)
    for arguments in ({}, dict(attn_mask=mask), dict(is_causal=True)):
        assert_close(ours(tokens(), **arguments), theirs(tokens(), **arguments), OUTPUT[torch.float32])


def test_forward_is_projection_operator_projection():
    layer = overlapped_attention_layer(24, 3, qkv_bias=True, overlap=3)
    qkv = layer.qkv(tokens()).view(2, 7, 3, 3, 8)
    assert_close(
        layer(tokens()), layer.proj(of_packed(naive_overlapped_attention)(qkv, 3)), OUTPUT[torch.float32]
    )


def test_norm_comes_before_the_overlap():
    layer = overlapped_attention_layer(24, 3, qk_norm=True, norm_layer=nn.LayerNorm, overlap=3)
    q, k, v = layer.qkv(tokens()).view(2, 7, 3, 3, 8).unbind(2)
    qkv = torch.stack([layer.q_norm(q), layer.k_norm(k), v], dim=2)
    assert_close(
        layer(tokens()), layer.proj(of_packed(naive_overlapped_attention)(qkv, 3)), OUTPUT[torch.float32]
    )


def test_padding_columns_of_the_projection_get_no_gradient():
    layer = overlapped_attention_layer(24, 3, overlap=3)
    layer(tokens()).square().sum().backward()
    columns = layer.proj.weight.grad.unflatten(1, (3, 14)).abs().amax(0)
    assert (columns[0, :3] == 0).all() and (columns[-1, -3:] == 0).all()
    assert (columns.flatten()[3:-3] > 0).all()


def test_dropout_acts_in_training_only():
    layer = overlapped_attention_layer(24, 3, attn_drop=0.5, overlap=2)
    torch.manual_seed(0)
    assert not torch.equal(layer(tokens()), layer(tokens()))
    layer.eval()
    assert torch.equal(layer(tokens()), layer(tokens()))


def test_attention_weights_of_the_layer():
    layer = overlapped_attention_layer(24, 3, overlap=2)
    weights = layer.attention_weights(tokens(), is_causal=True)
    assert weights.shape == (2, 3, 7, 7) and (weights.triu(1) == 0).all()
    assert_close(weights.sum(-1), torch.ones(2, 3, 7), OUTPUT[torch.float32])


@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize("overlap", [0, 1, 8])
def test_preserve_gives_the_same_outputs_and_every_parameter_a_gradient(overlap, qkv_bias):
    attn = Attention(24, 3, qkv_bias=qkv_bias)
    want = attn(tokens())
    layer = from_attention(attn, Overlap(overlap), init="preserve")
    got = layer(tokens())
    assert_close(got, want, OUTPUT[torch.float32])
    (got * tokens(seed=3)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_preserved_layer_can_leave_where_it_started():
    """A step on the new parameters alone changes the outputs, through the gains as well as the projection."""
    layer = from_attention(Attention(24, 3), Overlap(2), init="preserve")
    before = layer(tokens()).detach()
    with torch.no_grad():
        layer.borrow_gain.add_(0.5)
    assert (layer(tokens()) - before).abs().max() > 1e-4


def test_preserve_with_one_head_has_nothing_to_learn_from_neighbours():
    layer = from_attention(Attention(24, 1), Overlap(5), init="preserve")
    assert layer.borrow_gain is None and layer.proj.in_features == 34


def test_frozen_weights_stay_frozen_and_dtype_is_kept():
    attn = Attention(24, 3).to(torch.bfloat16).requires_grad_(False)
    layer = from_attention(attn, Overlap(2), init="paper")
    assert layer.proj.weight.dtype == torch.bfloat16 and not layer.proj.weight.requires_grad
    assert layer(tokens().bfloat16()).dtype == torch.bfloat16


def test_autocast():
    layer = overlapped_attention_layer(24, 3, overlap=2, qk_norm=True, norm_layer=nn.LayerNorm)
    want = layer(tokens())
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(tokens())
    assert got.dtype == torch.bfloat16
    assert_close(got, want, OUTPUT[torch.bfloat16])
    got.float().sum().backward()


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiles_whole(compiler):
    layer = from_attention(Attention(24, 3), Overlap(2), init="preserve")
    compiled = torch.compile(layer, fullgraph=True, backend=compiler)
    x, y = tokens().requires_grad_(), tokens().requires_grad_()
    want, got = layer(x), compiled(y)
    assert_close(got, want, OUTPUT[torch.float32])
    upstream = tokens(seed=3)
    (want_grad,), (got_grad,) = (
        torch.autograd.grad(want, [x], upstream),
        torch.autograd.grad(got, [y], upstream),
    )
    assert_close(got_grad, want_grad, GRADIENT[torch.float32])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(dim=24, num_heads=5), "24 does not split into 5 equal heads"),
        (dict(dim=24, num_heads=0), "at least 1"),
        (dict(dim=24, num_heads=3, overlap=9), "between 0 and the head width 8, got 9"),
        (dict(dim=24, num_heads=3, overlap=-1), "between 0 and the head width 8, got -1"),
        (
            dict(dim=24, num_heads=3, scale_norm=True, norm_layer=nn.LayerNorm, overlap=2),
            "overlap can.t carry output norm, which Attention brings",
        ),
        (
            dict(dim=24, num_heads=3, gated=True, overlap=2),
            "overlap can.t carry gate, which Attention brings",
        ),
        (dict(dim=24, num_heads=3, qk_norm=True), "need norm_layer"),
        (dict(dim=24, num_heads=3, attn_drop=1.5), r"\[0, 1\), got 1.5"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        overlapped_attention_layer(**arguments)


def test_mask_of_a_wrong_shape():
    with pytest.raises(ValueError, match=r"= \(2, 3, 7, 7\), got shape \(6, 6\)"):
        overlapped_attention_layer(24, 3, overlap=2)(tokens(), attn_mask=torch.zeros(6, 6))

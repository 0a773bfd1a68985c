"""Interleaved heads: against numbers of others, the equations, and what they reduce to."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from crosshead.ops.iha import (
    interleaved_attention,
    interleaved_attention_weights,
    naive_interleaved_attention,
)
from golden_files import load_golden
from tolerances import GOLDEN_GRADIENT, GOLDEN_OUTPUT, GRADIENT, OUTPUT, assert_close

# (B, h, N, d) and the number of pseudo-heads
SHAPES = [((2, 4, 9, 6), 2), ((1, 3, 7, 5), 1), ((2, 1, 5, 3), 2), ((1, 3, 1, 4), 2),
          ((2, 2, 11, 7), 3), ((0, 3, 4, 2), 2)]  # fmt: skip
NAMES = ("q", "k", "v", "mix_query", "mix_key", "mix_value", "collapse")
CLOSED = torch.zeros(7, 7, dtype=torch.float64)
CLOSED[1, 2:] = CLOSED[4] = -torch.inf  # the query 4 sees no key


def draw(shape, num_pseudo, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [shape] * 3 + [(shape[1], shape[1], num_pseudo)] * 4
    return [
        torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in sizes
    ]


def assert_same(fast, naive, inputs, dtype=torch.float64):
    out, want = fast(*inputs), naive(*inputs)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert_close(out, want, OUTPUT[dtype], "output")
    grads, wants = (torch.autograd.grad(x, inputs, upstream) for x in (out, want))
    largest = max((w.abs().max() for w in wants if w.numel()), default=1.0)
    for name, g, w in zip(NAMES, grads, wants, strict=False):
        if w.numel() and w.abs().max() < 1e-6 * largest:  # rounding alone, as of the logits of one token
            assert g.abs().max() <= GRADIENT[dtype] * largest, name
        else:
            assert_close(g, w, GRADIENT[dtype], f"gradient of {name}")


@pytest.mark.parametrize("function", [naive_interleaved_attention, interleaved_attention])
@pytest.mark.parametrize("name", ["iha_p1", "iha_p2"])
def test_golden(name, function):
    _, given = load_golden(name)
    operands = [given[n].requires_grad_() for n in NAMES]
    out = function(*operands)
    assert_close(out, given["y"], GOLDEN_OUTPUT[torch.float64])
    for n, grad in zip(NAMES, torch.autograd.grad(out, operands, given["upstream"]), strict=True):
        assert_close(grad, given[f"grad.{n}"], GOLDEN_GRADIENT[torch.float64], n)


@pytest.mark.parametrize("backend", ["auto", "math"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("shape", "num_pseudo"), SHAPES, ids=str)
def test_fast_equals_naive(shape, num_pseudo, dtype, backend):
    inputs = draw(shape, num_pseudo, dtype)
    assert_same(partial(interleaved_attention, backend=backend), naive_interleaved_attention, inputs, dtype)


@pytest.mark.parametrize("num_pseudo", [1, 2])
@pytest.mark.parametrize(
    "added",
    [
        dict(is_causal=True),
        dict(attn_mask=CLOSED),
        dict(attn_mask=CLOSED == 0),
        dict(attn_mask=(torch.arange(7) > 2).expand(2, 1, 1, 7)),
        dict(attn_mask=torch.arange(7) > 2),
        dict(attn_bias=torch.randn(3, 7, 7, dtype=torch.float64)),
        dict(attn_bias=torch.randn(3, 7, 7, dtype=torch.float64), is_causal=True),
        dict(attn_bias=torch.randn(3, 7, 7, dtype=torch.float64), attn_mask=CLOSED == 0),
        dict(attn_bias=torch.randn(3, 1, 7, dtype=torch.float64), attn_mask=CLOSED, scale=0.7),
    ],
    ids=lambda added: ", ".join(f"{n} {getattr(x, 'dtype', x)}" for n, x in added.items()),
)
def test_what_is_added_to_the_logits_is_added_for_every_pair_of_pseudo_heads(added, num_pseudo):
    inputs = draw((2, 3, 7, 5), num_pseudo)
    fast, naive = partial(interleaved_attention, **added), partial(naive_interleaved_attention, **added)
    assert_same(fast, naive, inputs)
    assert (fast(*inputs) - interleaved_attention(*inputs)).abs().max() > 1e-2  # it bears on the result


def test_a_bias_learns():
    bias = torch.randn(3, 7, 7, dtype=torch.float64, requires_grad=True)
    inputs = [*draw((2, 3, 7, 5), 2), bias]
    functions = [
        lambda *x, f=f: f(*x[:7], attn_bias=x[7])
        for f in (interleaved_attention, naive_interleaved_attention)
    ]
    grads = [torch.autograd.grad(f(*inputs).square().sum(), bias)[0] for f in functions]
    assert_close(*grads, GRADIENT[torch.float64])


@pytest.mark.parametrize("num_pseudo", [1, 2])
def test_gradcheck(num_pseudo):
    inputs = draw((1, 2, 3, 2), num_pseudo)
    assert torch.autograd.gradcheck(partial(interleaved_attention, is_causal=True), inputs)
    assert torch.autograd.gradgradcheck(interleaved_attention, inputs)


@pytest.mark.parametrize("num_pseudo", [1, 2, 3])
def test_equal_copies_are_plain_attention(num_pseudo):
    """The start that the paper's construction has: a the identity, R the identity by P."""
    q, k, v, *_ = (x.detach() for x in draw((2, 3, 7, 5), num_pseudo))
    same = torch.eye(3, dtype=torch.float64).unsqueeze(2).repeat(1, 1, num_pseudo)
    for added in ({}, dict(is_causal=True), dict(attn_mask=CLOSED)):
        want = F.scaled_dot_product_attention(q, k, v, **added)
        got = interleaved_attention(q, k, v, same, same, same, same / num_pseudo, **added)
        assert_close(got, want, OUTPUT[torch.float64])


def test_one_pseudo_head_folds_into_the_projections():
    """It is plain attention of other projections: those whose weights are mixed as the heads are."""
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    *weights, out = torch.randn(4, 12, 6, dtype=torch.float64)  # 3 heads of 4
    *_, mix_query, mix_key, mix_value, collapse = (t.detach() for t in draw((1, 3, 1, 4), 1))
    q, k, v = ((x @ w.mT).unflatten(-1, (3, 4)).transpose(1, 2) for w in weights)
    heads = interleaved_attention(q, k, v, mix_query, mix_key, mix_value, collapse)
    want = heads.transpose(1, 2).flatten(2) @ out
    folded = [
        torch.einsum("mg,mdc->gdc", mix[..., 0], w.unflatten(0, (3, 4))).flatten(0, 1)
        for mix, w in zip((mix_query, mix_key, mix_value), weights, strict=True)
    ]
    q, k, v = ((x @ w.mT).unflatten(-1, (3, 4)).transpose(1, 2) for w in folded)
    plain = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    out = torch.einsum("gm,gdc->mdc", collapse[..., 0], out.unflatten(0, (3, 4))).flatten(0, 1)
    assert_close(plain @ out, want, OUTPUT[torch.float64])


@pytest.mark.parametrize("added", [{}, dict(is_causal=True), dict(attn_mask=CLOSED == 0)], ids=str)
def test_weights_are_what_equal_values_are_multiplied_by(added):
    q, k, v, *mixes = (x.detach() for x in draw((2, 3, 7, 5), 2))
    weights = interleaved_attention_weights(q, k, *mixes, **added)
    assert weights.shape == (2, 3, 7, 7)
    v = v[:, :1].expand_as(v)
    assert_close(weights @ v, naive_interleaved_attention(q, k, v, *mixes, **added), OUTPUT[torch.float64])
    some = interleaved_attention_weights(q, k, *mixes, **added, queries=[6, 0])
    assert torch.equal(some, weights[:, :, [6, 0]])


def test_compiled_in_one_graph():
    inputs = [x.detach() for x in draw((2, 3, 7, 5), 2, torch.float32)]
    compiled = torch.compile(interleaved_attention, backend="aot_eager", fullgraph=True)
    assert_close(compiled(*inputs), interleaved_attention(*inputs), OUTPUT[torch.float32])


def test_dropout_drops_and_keeps_the_mean():
    inputs = draw((64, 2, 5, 3), 2)
    inputs = [
        x.detach()[:1].expand_as(x) if x.dim() == 4 and x.shape[0] == 64 else x.detach() for x in inputs
    ]
    torch.manual_seed(0)
    dropped = interleaved_attention(*inputs, dropout_p=0.5)
    assert (dropped[0] - dropped[1]).abs().max() > 0.1
    means = torch.stack([interleaved_attention(*inputs, dropout_p=0.3).mean(0) for _ in range(40)]).mean(0)
    kept = interleaved_attention(*inputs)[0]
    assert (means - kept).abs().max() < 0.2 * kept.abs().max()


def test_bad_input_is_named():
    *inputs, collapse = (x.detach() for x in draw((1, 3, 4, 2), 2))
    with pytest.raises(
        ValueError, match=r"collapse must be \(num_heads, num_heads, P\) = \(3, 3, 2\), got \(3, 3, 1\)"
    ):
        interleaved_attention(*inputs, collapse[..., :1])
    with pytest.raises(ValueError, match="attn_mask and is_causal exclude each other"):
        interleaved_attention(*inputs, collapse, attn_mask=torch.ones(4, 4) > 0, is_causal=True)
    with pytest.raises(ValueError, match="backend must be one of auto, sdpa, math, got 'fast'"):
        interleaved_attention(*inputs, collapse, backend="fast")
    with pytest.raises(ValueError, match="attn_bias is added to the logits and must be floating point"):
        interleaved_attention(*inputs, collapse, attn_bias=torch.ones(4, 4) > 0)

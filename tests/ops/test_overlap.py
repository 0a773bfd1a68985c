"""Overlapped heads: the fast path against the equations, the authors' numbers, and what it reduces to."""

import pytest
import torch
import torch.nn.functional as F

from crosshead.ops import overlap as ops
from crosshead.ops import paths
from crosshead.ops.overlap import overlapped_heads
from golden_files import load_golden
from packed import of_packed
from tolerances import GOLDEN_GRADIENT, GOLDEN_OUTPUT, GRADIENT, OUTPUT, assert_close

overlapped_attention = of_packed(ops.overlapped_attention)
naive_overlapped_attention = of_packed(ops.naive_overlapped_attention)
overlapped_attention_weights = of_packed(ops.overlapped_attention_weights, joins=False)

# (B, N, h, d, o): odd and prime sizes, one head, one token, none and the widest overlap, widths that are rounded up.
SHAPES = [
    (2, 7, 3, 5, 2),
    (1, 1, 4, 8, 3),
    (3, 11, 1, 6, 4),
    (2, 13, 5, 7, 7),
    (2, 10, 4, 12, 0),
    (1, 17, 2, 3, 1),
    (2, 9, 3, 8, 7),
]


def packed(shape, dtype=torch.float64, seed=0):
    batch, tokens, heads, width, _ = shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, tokens, 3, heads, width, generator=generator, dtype=torch.float64).to(dtype)


def masks(shape, dtype):
    batch, tokens, heads = shape[:3]
    generator = torch.Generator().manual_seed(1)
    keep = torch.rand(batch, 1, tokens, tokens, generator=generator) > 0.4
    keep |= torch.eye(tokens, dtype=torch.bool)
    bias = torch.randn(heads, tokens, tokens, generator=generator).to(dtype)
    return {"none": None, "boolean": keep, "additive": bias}


def output_and_gradients(function, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    return out, torch.autograd.grad(out, inputs, upstream)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("mask", ["none", "boolean", "additive"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fast_equals_naive(shape, mask, dtype):
    x, bias = packed(shape, dtype), masks(shape, dtype)[mask]
    arguments = dict(overlap=shape[-1], attn_mask=bias)
    got, grads = output_and_gradients(lambda t: overlapped_attention(t, **arguments), x)
    want, wants = output_and_gradients(lambda t: naive_overlapped_attention(t, **arguments), x)
    assert_close(got, want, OUTPUT[dtype], "output")
    assert_close(grads[0], wants[0], GRADIENT[dtype], "gradient of qkv")


def test_mask_gets_its_gradient():
    shape = (2, 7, 3, 5, 2)
    x, bias = packed(shape), masks(shape, torch.float64)["additive"]
    got, grads = output_and_gradients(lambda t, m: overlapped_attention(t, 2, attn_mask=m), x, bias)
    want, wants = output_and_gradients(lambda t, m: naive_overlapped_attention(t, 2, attn_mask=m), x, bias)
    for g, w in zip(grads, wants, strict=True):
        assert_close(g, w, GRADIENT[torch.float64])


@pytest.mark.parametrize("shape", SHAPES[:1] + SHAPES[3:4], ids=str)
def test_gain_causal_and_scale(shape):
    x, o = packed(shape), shape[-1]
    gain = torch.randn(shape[2], 2 * o, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    arguments = dict(is_causal=True, scale=0.3)
    got, grads = output_and_gradients(
        lambda t, g: overlapped_attention(t, o, borrow_gain=g, **arguments), x, gain
    )
    want, wants = output_and_gradients(
        lambda t, g: naive_overlapped_attention(t, o, borrow_gain=g, **arguments), x, gain
    )
    assert_close(got, want, OUTPUT[torch.float64])
    for g, w in zip(grads, wants, strict=True):
        assert_close(g, w, GRADIENT[torch.float64])


@pytest.mark.parametrize("function", [overlapped_attention, naive_overlapped_attention])
def test_gradcheck(function):
    x = packed((2, 4, 3, 3, 2)).requires_grad_()
    gain = torch.rand(3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, g: function(t, 2, borrow_gain=g), (x, gain))


@pytest.mark.parametrize("overlap", [0, 3, 12])
def test_golden_authors_attention(overlap):
    case, file = load_golden(f"mohsa_attention_o{overlap}")
    leaves = {
        name: file[name].clone().requires_grad_() for name in file if name == "x" or name.startswith("param.")
    }
    for function in (overlapped_attention, naive_overlapped_attention):
        qkv = F.linear(leaves["x"], leaves["param.to_qkv.weight"])
        heads = function(qkv.unflatten(-1, (3, case["heads"], case["head_dim"])), overlap)
        y = F.linear(heads, leaves["param.to_out.0.weight"], leaves["param.to_out.0.bias"])
        grads = torch.autograd.grad(y, list(leaves.values()), file["upstream"])
        assert_close(y, file["y"], GOLDEN_OUTPUT[torch.float32], "y")
        for name, grad in zip(leaves, grads, strict=True):
            assert_close(
                grad, file["grad." + name.removeprefix("param.")], GOLDEN_GRADIENT[torch.float32], name
            )


def test_no_overlap_is_plain_attention():
    x = packed((2, 9, 3, 5, 0))
    q, k, v = x.permute(2, 0, 3, 1, 4).unbind(0)
    want = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    assert_close(overlapped_attention(x, 0), want, OUTPUT[torch.float64])


def test_zero_gain_gives_the_weights_of_plain_attention():
    x = packed((2, 9, 4, 6, 3))
    got = overlapped_attention_weights(x, 3, borrow_gain=torch.zeros(4, 6, dtype=torch.float64))
    assert_close(got, overlapped_attention_weights(x, 0), OUTPUT[torch.float64])


def test_weights_are_those_of_the_output():
    x, o = packed((2, 9, 4, 6, 3)), 3
    weights = overlapped_attention_weights(x, o)
    assert_close(weights.sum(-1), torch.ones(2, 4, 9, dtype=torch.float64), OUTPUT[torch.float64])
    padded = F.pad(x[:, :, 2].flatten(2), (o, o))
    values = torch.stack([padded[..., i * 6 : i * 6 + 12] for i in range(4)], dim=1)
    want = (weights @ values).transpose(1, 2).flatten(2)
    assert_close(overlapped_attention(x, o), want, OUTPUT[torch.float64])


def test_neighbours_matter_and_distant_heads_do_not():
    x = packed((1, 5, 5, 4, 2))
    moved = x.clone()
    moved[:, :, :, 2] += 1.0
    change = (
        (overlapped_attention(moved, 2) - overlapped_attention(x, 2))
        .unflatten(-1, (5, 8))
        .abs()
        .amax((0, 1, 3))
    )
    assert (change[1:4] > 1e-6).all() and (change[[0, 4]] == 0).all()


def test_query_without_a_key_attends_to_nothing():
    x = packed((1, 5, 2, 4, 1), torch.float32)
    mask = torch.ones(5, 5, dtype=torch.bool)
    mask[2] = False
    for function in (overlapped_attention, naive_overlapped_attention):
        out = function(x, 1, attn_mask=mask)
        assert (out[:, 2] == 0).all() and (out[:, 3] != 0).any()


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    "shape", [(3, 7, 3, 5, 2), (5, 19, 4, 16, 6), (2, 1, 1, 8, 8), (4, 9, 2, 4, 0)], ids=str
)
def test_pure_bfloat16(shape, native, monkeypatch):
    """On a processor with products in bfloat16, and on one that computes it in float32."""
    monkeypatch.setattr(paths, "has_native_bfloat16", lambda: native)
    x = packed(shape, torch.bfloat16)
    got, grads = output_and_gradients(lambda t: overlapped_attention(t, shape[-1]), x)
    want, wants = output_and_gradients(lambda t: naive_overlapped_attention(t, shape[-1]), x.double())
    assert got.dtype == torch.bfloat16
    assert_close(got, want, OUTPUT[torch.bfloat16])
    assert_close(grads[0], wants[0], GRADIENT[torch.bfloat16])


def test_bfloat16_chunks_join_seamlessly(monkeypatch):
    import crosshead.ops.overlap.products as products

    x = packed((7, 9, 3, 8, 3), torch.bfloat16)
    whole, whole_grads = output_and_gradients(lambda t: overlapped_attention(t, 3), x)
    monkeypatch.setattr(products, "_CHUNK_ELEMENTS", 2 * 3 * 9 * 9)
    parts, part_grads = output_and_gradients(lambda t: overlapped_attention(t, 3), x)
    assert torch.equal(whole, parts) and torch.equal(whole_grads[0], part_grads[0])


@pytest.mark.parametrize("native", [True, False])
def test_autocast_to_bfloat16(native, monkeypatch):
    monkeypatch.setattr(paths, "has_native_bfloat16", lambda: native)
    x = packed((2, 9, 3, 8, 3), torch.float32)
    weight = torch.randn(3 * 24, 24, generator=torch.Generator().manual_seed(3))
    tokens = x[:, :, 0].flatten(2)
    with torch.autocast("cpu", torch.bfloat16):
        qkv = F.linear(tokens, weight).unflatten(-1, (3, 3, 8))
        out = overlapped_attention(qkv, 3)
    assert out.dtype == torch.bfloat16
    want = naive_overlapped_attention(qkv.double(), 3)
    assert_close(out, want, OUTPUT[torch.bfloat16])


def test_dropout_keeps_the_mean_and_drops():
    x = packed((1, 6, 2, 4, 2), torch.float32)
    torch.manual_seed(0)
    for function in (overlapped_attention, naive_overlapped_attention):
        draws = torch.stack([function(x, 2, dropout_p=0.3) for _ in range(2000)])
        assert draws.std(0).max() > 0.05
        # 2,000 draws of values of about one: their mean lies within a tenth.
        assert (draws.mean(0) - overlapped_attention(x, 2)).abs().max() < 0.1


@pytest.mark.parametrize("overlap", [0, 3])
def test_compiles_whole_forward_and_backward(overlap):
    x = packed((2, 9, 3, 8, overlap), torch.float32)
    compiled = torch.compile(overlapped_attention, fullgraph=True, backend="inductor")
    got, grads = output_and_gradients(lambda t: compiled(t, overlap), x)
    want, wants = output_and_gradients(lambda t: naive_overlapped_attention(t, overlap), x)
    assert_close(got, want, OUTPUT[torch.float32])
    assert_close(grads[0], wants[0], GRADIENT[torch.float32])


def test_exports():
    class Module(torch.nn.Module):
        def forward(self, qkv):
            return overlapped_attention(qkv, 3)

    x = packed((2, 9, 3, 8, 3), torch.float32)
    program = torch.export.export(
        Module(), (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)
    )
    other = packed((5, 9, 3, 8, 3), torch.float32, seed=4)
    assert_close(program.module()(other), overlapped_attention(other, 3), OUTPUT[torch.float32])


def test_memory_is_linear_in_tokens():
    """What is kept for the backward pass grows with N, not N squared."""

    def kept(tokens):
        x, sizes = packed((1, tokens, 2, 8, 3), torch.float32).requires_grad_(), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            overlapped_attention(x, 3)
        return sum(sizes)

    assert kept(512) <= 2.1 * kept(256)


def test_bfloat16_is_as_exact_as_the_fused_attention():
    """Large logits: rounded to bfloat16, they would cost four to five times the error."""
    x = packed((4, 50, 4, 16, 6), torch.bfloat16) * 2
    want = naive_overlapped_attention(x.double(), 6)
    q, k, v = overlapped_heads(x, 6)
    fused = F.scaled_dot_product_attention(q, k, v, scale=16**-0.5).transpose(1, 2).flatten(2)
    errors = [(out.double() - want).pow(2).mean().sqrt() for out in (overlapped_attention(x, 6), fused)]
    assert errors[0] < 1.5 * errors[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(overlap=-1), "between 0 and the head width 4, got -1"),
        (dict(overlap=5), "between 0 and the head width 4, got 5"),
        (dict(overlap=1.5), "whole number"),
        (
            dict(attn_mask=torch.ones(4, 4, dtype=torch.bool)),
            r"broadcast to .* = \(2, 3, 5, 5\), got shape \(4, 4\)",
        ),
        (dict(attn_mask=torch.ones(5, 5, dtype=torch.int64)), "boolean .* or floating point"),
        (dict(attn_mask=torch.ones(5, 5), is_causal=True), "exclude each other"),
        (dict(dropout_p=1.0), r"\[0, 1\)"),
        (dict(borrow_gain=torch.ones(3, 3)), r"\(num_heads, 2·overlap\) = \(3, 4\), got \(3, 3\)"),
        (dict(q=torch.zeros(2, 3, 4)), r"of shape \(B, num_heads, N, head_dim\)"),
        (dict(k=torch.zeros(2, 3, 6, 4), v=torch.zeros(2, 3, 6, 4)), "5 queries and 6 keys"),
        (dict(q=torch.zeros(2, 3, 5, 4, dtype=torch.int32)), "floating point"),
        (dict(attn_bias=torch.ones(5, 5, dtype=torch.bool)), "attn_bias is added"),
    ],
)
@pytest.mark.parametrize("function", [ops.overlapped_attention, ops.naive_overlapped_attention])
def test_bad_input_is_named(function, change, message):
    arguments = dict.fromkeys("qkv", torch.zeros(2, 3, 5, 4)) | dict(overlap=2) | change
    with pytest.raises(ValueError, match=message):
        function(**arguments)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "boolean", "additive", "of heads"])
@pytest.mark.parametrize("dims", [2, 3, 4])
def test_bias_and_mask(dims, mask, causal):
    """Biases of one map, of the heads, of the images; masks of both kinds; all get their gradients."""
    shape = (2, 7, 3, 5, 2)
    x, given = packed(shape), masks(shape, torch.float64)
    whole = given["additive"].expand(2, -1, -1, -1)
    bias = {2: whole[0, 0], 3: whole[0], 4: whole}[dims]
    attn_mask = {"none": None, "boolean": given["boolean"], "additive": whole[:, :1], "of heads": whole}[mask]
    if causal and attn_mask is not None:
        with pytest.raises(ValueError, match="exclude each other"):
            overlapped_attention(x, 2, attn_bias=bias, attn_mask=attn_mask, is_causal=True)
        return
    found = [
        output_and_gradients(
            lambda t, b, f=f: f(t, 2, attn_bias=b, attn_mask=attn_mask, is_causal=causal), x, bias
        )
        for f in (overlapped_attention, naive_overlapped_attention)
    ]
    assert_close(found[0][0], found[1][0], OUTPUT[torch.float64])
    for g, w in zip(found[0][1], found[1][1], strict=True):
        assert_close(g, w, GRADIENT[torch.float64])


def test_backends_agree_or_say_why_they_can_not_serve(monkeypatch):
    x, bias = packed((2, 9, 3, 8, 3), torch.float32), torch.randn(3, 9, 9)
    want = naive_overlapped_attention(x, 3)
    for backend in ("auto", "sdpa", "math"):
        assert_close(overlapped_attention(x, 3, backend=backend), want, OUTPUT[torch.float32], backend)
    want = naive_overlapped_attention(x, 3, attn_bias=bias)
    for backend in ("auto", "sdpa", "products", "math"):
        got = overlapped_attention(x, 3, attn_bias=bias, backend=backend)
        assert_close(got, want, OUTPUT[torch.float32], backend)
    monkeypatch.setattr(paths, "has_native_bfloat16", lambda: True)
    half = overlapped_attention(x.bfloat16(), 3, backend="products")
    assert_close(half, naive_overlapped_attention(x.bfloat16().double(), 3), OUTPUT[torch.bfloat16])
    for refused, message in (
        (dict(backend="products"), "expected bfloat16, got torch.float32"),
        (dict(backend="products", attn_bias=bias, dropout_p=0.1), "expected no dropout, got 0.1"),
        (dict(backend="fastest"), "backend must be one of auto, sdpa, products, triton, math, got 'fastest'"),
    ):
        with pytest.raises(ValueError, match=message):
            overlapped_attention(x, 3, **refused)


def test_the_packed_form_serves_for_one_more_version():
    x, bias = packed((2, 9, 3, 8, 3), torch.float32), torch.randn(3, 9, 9)
    with pytest.warns(FutureWarning, match=r"overlapped_attention\(q, k, v, ...\)"):
        got = ops.overlapped_attention(x, 3, is_causal=True)
    assert torch.equal(got, overlapped_attention(x, 3, is_causal=True))
    with pytest.warns(FutureWarning, match="attn_bias"):
        of_windows = ops.overlapped_window_attention
    assert torch.equal(of_windows(x, 3, bias), overlapped_attention(x, 3, attn_bias=bias))


def test_a_mask_of_one_axis_is_one_of_keys():
    """check_mask lets it pass, and PyTorch's attention alone would not take it."""
    qkv = torch.randn(2, 7, 3, 2, 4, dtype=torch.float64)
    keys = torch.arange(7) > 2
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    got = ops.overlapped_attention(q, k, v, 1, attn_mask=keys)
    want = ops.naive_overlapped_attention(q, k, v, 1, attn_mask=keys)
    assert_close(got, want, OUTPUT[torch.float64])

"""Talking heads: both fast paths against the equations, the authors' numbers, and what they reduce to."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import crosshead.ops.talking.chunked as chunked
from crosshead.ops import talking as ops
from crosshead.ops.overlap import naive_overlapped_attention as naive_overlapped
from golden_files import load_golden
from packed import of_packed
from tolerances import GOLDEN_GRADIENT, GOLDEN_OUTPUT, GRADIENT, OUTPUT, assert_close

talking_heads_attention = of_packed(ops.talking_heads_attention)
naive_talking_heads_attention = of_packed(ops.naive_talking_heads_attention)
talking_heads_weights = of_packed(ops.talking_heads_weights, joins=False)
naive_overlapped_attention = of_packed(naive_overlapped)

# (B, N, h, d, o): odd and prime sizes, one head, no overlap, the widest overlap.
SHAPES = [
    (2, 53, 3, 5, 2),  # keys that are padded to whole rows
    (2, 7, 3, 5, 2),
    (1, 11, 1, 6, 4),
    (5, 13, 5, 7, 7),
    (2, 10, 4, 12, 0),
    (1, 17, 2, 3, 1),
    (1, 12, 3, 4, 2),
]
BACKENDS = ["chunked", "full_width", "math"]
MIXING = ["pre_weight", "pre_bias", "post_weight", "post_bias"]


def arguments(shape, dtype=torch.float64, seed=0):
    """qkv and the mixing, as a list in the order of the function's arguments."""
    batch, tokens, heads, width, _ = shape
    generator = torch.Generator().manual_seed(seed)
    sizes = [(batch, tokens, 3, heads, width), (heads, heads), (heads,), (heads, heads), (heads,)]
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


def output_and_gradients(function, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    return out, torch.autograd.grad(out, inputs, upstream)


def assert_same(fast, naive, inputs, dtype=torch.float64, cancelled=0.0):
    """Output and gradients of ``fast`` in ``dtype`` against ``naive``; the first bias has no influence at all."""
    got, grads = output_and_gradients(fast, *inputs)
    want, wants = output_and_gradients(naive, *inputs)
    assert_close(got, want, OUTPUT[dtype], "output")
    for name, g, w in zip(["qkv", *MIXING, "gain"], grads, wants, strict=False):
        if name == "pre_bias":
            assert g.abs().max() <= cancelled
        else:
            assert_close(g, w, GRADIENT[dtype], name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fast_equals_naive(shape, backend, dtype):
    inputs, o = arguments(shape, dtype), shape[-1]
    assert_same(
        partial(talking_heads_attention, overlap=o, backend=backend),
        partial(naive_talking_heads_attention, overlap=o),
        inputs,
        dtype,
    )


def test_no_images_give_no_heads():
    inputs = [x.requires_grad_() for x in arguments((0, 7, 3, 5, 2))]
    out = talking_heads_attention(*inputs, overlap=2)
    out.sum().backward()
    assert out.shape == (0, 7, 27) and (inputs[1].grad == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_token_attends_to_itself(backend):
    """The softmax over one key is 1 whatever the logits: nothing before it has any influence."""
    inputs = arguments((3, 1, 4, 8, 3))
    function = partial(talking_heads_attention, overlap=3, backend=backend)
    got, grads = output_and_gradients(function, *inputs)
    want, wants = output_and_gradients(partial(naive_talking_heads_attention, overlap=3), *inputs)
    assert_close(got, want, OUTPUT[torch.float64])
    assert grads[1].abs().max() < 1e-12 and grads[0][:, :, :2].abs().max() < 1e-12
    for index in (0, 3, 4):
        assert_close(grads[index], wants[index], GRADIENT[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(2, 7, 3, 5, 2), (2, 6, 4, 4, 4)], ids=str)
def test_gain_and_scale(shape, backend):
    o = shape[-1]
    gain = torch.randn(shape[2], 2 * o, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def run(function, *inputs, **more):
        return function(*inputs[:5], overlap=o, scale=0.3, borrow_gain=inputs[5], **more)

    assert_same(
        partial(run, talking_heads_attention, backend=backend),
        partial(run, naive_talking_heads_attention),
        [*arguments(shape), gain],
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_biases(backend):
    qkv, pre, _, post, _ = arguments((2, 7, 3, 5, 2))
    got = talking_heads_attention(qkv, pre, None, post, None, overlap=2, backend=backend)
    assert_close(
        got, naive_talking_heads_attention(qkv, pre, None, post, None, overlap=2), OUTPUT[torch.float64]
    )


@pytest.mark.parametrize(
    "function",
    [
        naive_talking_heads_attention,
        *(partial(talking_heads_attention, backend=backend) for backend in BACKENDS),
    ],
    ids=["naive", *BACKENDS],
)
def test_gradcheck(function):
    inputs = [x.requires_grad_() for x in arguments((2, 4, 3, 3, 2))]
    assert torch.autograd.gradcheck(partial(function, overlap=2), inputs)


def test_gradcheck_with_dropout():
    """With its masks held still, dropout is linear like the rest: the backward pass must draw the same ones."""
    inputs = [x.requires_grad_() for x in arguments((3, 5, 2, 3, 1))]

    def same_masks(*tensors):
        torch.manual_seed(3)
        return talking_heads_attention(*tensors, overlap=1, dropout_p=0.4)

    assert torch.autograd.gradcheck(same_masks, inputs)


@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
@pytest.mark.parametrize("elements", [1, 2 * 3 * 9 * 9, 3 * 5 * 9, 4 * 3 * 9 * 9])
def test_chunks_join_seamlessly(monkeypatch, elements, dropout_p):
    """Chunks of one row, of some rows, of whole images; ragged at the end. Masks differ with the chunks."""
    inputs = arguments((7, 9, 3, 8, 3))
    monkeypatch.setattr(chunked, "_CPU_CHUNK", elements)
    if dropout_p:
        torch.manual_seed(0)
        out, grads = output_and_gradients(
            partial(talking_heads_attention, overlap=3, dropout_p=dropout_p), *inputs
        )
        # O is linear in V under fixed masks, so the gradient of V gives the output back: <dO, O> = <dV, V>.
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
        assert_close((grads[0][:, :, 2] * inputs[0][:, :, 2]).sum(), (out * upstream).sum(), 1e-10)
        return
    assert_same(
        partial(talking_heads_attention, overlap=3, backend="chunked"),
        partial(naive_talking_heads_attention, overlap=3),
        inputs,
    )


def test_dropout_keeps_the_mean_and_drops():
    inputs = arguments((1, 6, 2, 4, 2), torch.float32)
    torch.manual_seed(0)
    for function in (talking_heads_attention, naive_talking_heads_attention):
        draws = torch.stack([function(*inputs, overlap=2, dropout_p=0.3) for _ in range(2000)])
        assert draws.std(0).max() > 0.05
        # 2,000 draws: the mean lies within five of its standard errors.
        error = (draws.mean(0) - talking_heads_attention(*inputs, overlap=2)).abs()
        assert (error <= 5 * draws.std(0) / 2000**0.5).all()


@pytest.mark.parametrize(
    "function",
    [
        naive_talking_heads_attention,
        *(partial(talking_heads_attention, backend=backend) for backend in BACKENDS),
    ],
    ids=["naive", *BACKENDS],
)
def test_golden_authors_attention(function):
    case, file = load_golden("cait_attention_o5")
    leaves = {
        name: file[name].clone().requires_grad_() for name in file if name == "x" or name.startswith("param.")
    }
    x = leaves["x"]
    projections = [leaves["param.to_q.weight"], leaves["param.to_kv.weight"]]
    qkv = F.linear(x, torch.cat(projections)).unflatten(-1, (3, case["heads"], case["head_dim"]))
    # The file's matrices hold the weight of head i in mixed head j at [i, j].
    pre, post = leaves["param.mix_heads_pre_attn"].t(), leaves["param.mix_heads_post_attn"].t()
    heads = function(qkv, pre, None, post, None, overlap=case["overlap"])
    y = F.linear(heads, leaves["param.to_out.0.weight"], leaves["param.to_out.0.bias"])
    grads = torch.autograd.grad(y, list(leaves.values()), file["upstream"])
    assert_close(y, file["y"], GOLDEN_OUTPUT[torch.float32], "y")
    for name, grad in zip(leaves, grads, strict=True):
        assert_close(grad, file["grad." + name.removeprefix("param.")], GOLDEN_GRADIENT[torch.float32], name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_silent_mixing_is_overlapped_attention(backend):
    qkv, *_ = arguments((2, 9, 3, 5, 2))
    same = torch.eye(3, dtype=torch.float64)
    got = talking_heads_attention(qkv, same, None, same, None, overlap=2, backend=backend)
    assert_close(got, naive_overlapped_attention(qkv, 2), OUTPUT[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
def test_permuting_the_mixed_heads_permutes_the_weights(backend):
    """Without overlap, mixing with a permutation lets each head attend where another one looks."""
    qkv, *_ = arguments((2, 9, 3, 5, 0))
    turn = torch.eye(3, dtype=torch.float64)[[1, 2, 0]]
    weights = talking_heads_weights(qkv, turn, None, torch.eye(3, dtype=torch.float64), None)
    q, k = qkv[:, :, 0].transpose(1, 2), qkv[:, :, 1].transpose(1, 2)
    assert_close(weights, (q @ k.mT * 5**-0.5).softmax(-1)[:, [1, 2, 0]], OUTPUT[torch.float64])
    out = talking_heads_attention(qkv, turn, None, torch.eye(3, dtype=torch.float64), None, backend=backend)
    assert_close(
        out, (weights @ qkv[:, :, 2].transpose(1, 2)).transpose(1, 2).flatten(2), OUTPUT[torch.float64]
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(3, 7, 3, 5, 2), (5, 19, 4, 16, 6), (4, 9, 2, 4, 0)], ids=str)
def test_pure_bfloat16(shape, backend):
    inputs = arguments(shape, torch.bfloat16)
    inputs[1], inputs[3] = (w / shape[2] for w in (inputs[1], inputs[3]))
    function = partial(talking_heads_attention, overlap=shape[-1], backend=backend)
    got, grads = output_and_gradients(function, *inputs)
    want, wants = output_and_gradients(
        partial(naive_talking_heads_attention, overlap=shape[-1]), *(x.double() for x in inputs)
    )
    assert got.dtype == torch.bfloat16
    assert_close(got, want, OUTPUT[torch.bfloat16])
    for name, g, w in zip(["qkv", *MIXING], grads, wants, strict=True):
        if name != "pre_bias":
            assert_close(g, w, GRADIENT[torch.bfloat16], name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_to_bfloat16_with_float32_mixing(backend):
    inputs = arguments((2, 9, 3, 8, 3), torch.float32)
    inputs[1], inputs[3] = inputs[1] / 3, inputs[3] / 3
    function = partial(talking_heads_attention, overlap=3, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        out, grads = output_and_gradients(function, *inputs)
    assert out.dtype == torch.bfloat16 and all(g.dtype == torch.float32 for g in grads)
    want, wants = output_and_gradients(
        partial(naive_talking_heads_attention, overlap=3), *(x.double() for x in inputs)
    )
    assert_close(out, want, OUTPUT[torch.bfloat16])
    assert_close(grads[0], wants[0], GRADIENT[torch.bfloat16])


@pytest.mark.parametrize(
    ("overlap", "backend", "compiler"),
    [(0, "chunked", "aot_eager"), (3, "chunked", "inductor"), (3, "full_width", "aot_eager")],
)
def test_compiles_whole_forward_and_backward(overlap, backend, compiler):
    compiled = torch.compile(talking_heads_attention, fullgraph=True, backend=compiler)
    assert_same(
        partial(compiled, overlap=overlap, backend=backend),
        partial(naive_talking_heads_attention, overlap=overlap),
        arguments((3, 9, 3, 8, overlap), torch.float32),
        torch.float32,
    )


def test_operators_keep_pytorchs_contract():
    """Schema, abstract shapes and autograd registration, as torch.library checks them."""
    qkv, pre, _, post, bias = arguments((2, 5, 3, 4, 0))
    q, k, v = (x.requires_grad_() for x in qkv.permute(2, 0, 3, 1, 4))
    mixing = [x.requires_grad_() for x in (pre, post, bias)]
    torch.library.opcheck(chunked._forward, (q, k, v, *mixing, 0.5, 0.0, None))
    torch.library.opcheck(chunked._forward, (q, k, v, *mixing, 0.5, 0.3, torch.tensor(5)))


def test_exports_with_pytorchs_own_operators():
    class Module(torch.nn.Module):
        def forward(self, qkv, pre, pre_bias, post, post_bias):
            return talking_heads_attention(qkv, pre, pre_bias, post, post_bias, overlap=3)

    shape = (2, 9, 3, 8, 3)
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(
        Module(), tuple(arguments(shape, torch.float32)), dynamic_shapes=(batch, None, None, None, None)
    )
    assert not any("crosshead" in str(node.target) for node in program.graph.nodes)
    other = arguments((5, *shape[1:]), torch.float32, seed=4)
    assert_close(program.module()(*other), talking_heads_attention(*other, overlap=3), OUTPUT[torch.float32])


@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_kept_for_the_backward_pass_is_linear_in_tokens(backend):
    def kept(tokens):
        inputs, sizes = [x.requires_grad_() for x in arguments((1, tokens, 2, 8, 3), torch.float32)], []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            talking_heads_attention(*inputs, overlap=3, backend=backend)
        return sum(sizes)

    assert kept(512) <= 2.1 * kept(256)


def test_flops_are_counted():
    inputs = [x.requires_grad_() for x in arguments((2, 16, 4, 8, 0), torch.float32)]
    with FlopCounterMode(display=False) as counter:
        out = talking_heads_attention(*inputs, backend="chunked")
    products, mixings = 4 * 2 * 4 * 16 * 16 * 8, 4 * 2 * 4 * 4 * 16 * 16
    assert counter.get_total_flops() == products + mixings
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    assert counter.get_total_flops() == 2.5 * products + 3 * mixings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(overlap=5), "between 0 and the head width 4, got 5"),
        (dict(dropout_p=1.0), r"\[0, 1\)"),
        (
            dict(pre_weight=torch.eye(4)),
            r"pre_weight must be \(num_heads, num_heads\) = \(3, 3\), got \(4, 4\)",
        ),
        (dict(post_weight=torch.ones(3)), r"post_weight must be .* got \(3,\)"),
        (dict(pre_bias=torch.ones(1)), r"pre_bias must be \(num_heads,\) = \(3,\) or None, got \(1,\)"),
        (dict(post_bias=torch.ones(3, 1)), r"post_bias must be .* got \(3, 1\)"),
        (dict(borrow_gain=torch.ones(3, 3)), r"\(num_heads, 2·overlap\) = \(3, 4\), got \(3, 3\)"),
        (dict(q=torch.zeros(2, 5, 4)), r"of shape \(B, num_heads, N, head_dim\)"),
    ],
)
@pytest.mark.parametrize("function", [ops.talking_heads_attention, ops.naive_talking_heads_attention])
def test_bad_input_is_named(function, change, message):
    fitting = dict.fromkeys("qkv", torch.zeros(2, 3, 5, 4))
    fitting |= dict(overlap=2, pre_weight=torch.eye(3), post_weight=torch.eye(3))
    fitting |= dict(pre_bias=torch.zeros(3), post_bias=torch.zeros(3))
    with pytest.raises(ValueError, match=message):
        function(**fitting | change)


def test_bad_modes_are_named():
    inputs = arguments((2, 5, 3, 4, 0))
    with pytest.raises(ValueError, match="one of auto, chunked, full_width, triton, math, got 'linear'"):
        talking_heads_attention(*inputs, backend="linear")
    with pytest.raises(ValueError, match=r"cannot drop 0\.1 of them; use backend 'chunked'"):
        talking_heads_attention(*inputs, backend="full_width", dropout_p=0.1)


@pytest.mark.parametrize("mask", ["none", "boolean", "additive", "causal"])
@pytest.mark.parametrize("biased", [False, True])
def test_bias_and_mask_equal_naive(biased, mask):
    """With a query that sees no key; gradients of the bias too."""
    inputs, generator = arguments((2, 7, 3, 5, 2)), torch.Generator().manual_seed(4)
    keep = torch.rand(2, 1, 7, 7, generator=generator) > 0.3
    keep[0, 0, 2] = False
    given = dict(is_causal=True) if mask == "causal" else {}
    if mask in ("boolean", "additive"):
        given["attn_mask"] = (
            keep if mask == "boolean" else torch.zeros(keep.shape).masked_fill(~keep, -torch.inf)
        )
    bias = torch.randn(3, 7, 7, generator=generator, dtype=torch.float64)

    def run(function, *x):
        return function(*x[:5], overlap=2, attn_bias=x[5] if biased else None, **given) + 0 * x[5].sum()

    found = [partial(run, f) for f in (talking_heads_attention, naive_talking_heads_attention)]
    assert_same(
        *found, [*inputs, bias], cancelled=1e-12
    )  # rounding alone, where the bias is added and cancels


def test_a_backend_that_can_not_serve_says_why():
    inputs = arguments((2, 7, 3, 5, 2))
    with pytest.raises(ValueError, match="backend='chunked' takes no bias, mask or causality"):
        talking_heads_attention(*inputs, is_causal=True, backend="chunked")
    with pytest.raises(ValueError, match=r"broadcast to .* = \(2, 1, 7, 7\)"):
        talking_heads_attention(*inputs, attn_mask=torch.ones(3, 7, 7))


def test_the_packed_form_serves_for_one_more_version():
    inputs = arguments((2, 7, 3, 5, 2))
    with pytest.warns(FutureWarning, match="mode=|packed"):
        got = ops.talking_heads_attention(*inputs, overlap=2, mode="chunked")
    assert torch.equal(got, talking_heads_attention(*inputs, overlap=2, backend="chunked"))

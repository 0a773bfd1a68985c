"""Dynamically composable heads: the fast path against the equations, the authors' numbers, and what they reduce to."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

import crosshead.ops.chunks as chunks
from crosshead.ops.dcmha import composed_attention, composed_attention_weights, naive_composed_attention
from golden_files import load_golden
from tolerances import GOLDEN_GRADIENT, GOLDEN_OUTPUT, GRADIENT, OUTPUT, assert_close

# (B, h, N, d, dim, K, R): odd and prime sizes, one head, one image, rank 1 and 3.
SHAPES = [(2, 3, 7, 5, 11, 6, 2), (1, 1, 11, 6, 6, 4, 2), (3, 5, 13, 3, 10, 7, 1), (2, 2, 5, 4, 8, 3, 3)]
NAMES = ["q", "k", "v", "x", "hidden", "factor", "diagonal", "pre", "post"]


def arguments(shape, dtype=torch.float64, seed=0):
    batch, heads, tokens, width, dim, hidden, rank = shape
    generator = torch.Generator().manual_seed(seed)
    sizes = [(batch, heads, tokens, width)] * 3 + [(batch, tokens, dim), (4 * hidden, dim)]
    sizes += [(4, hidden, 2 * rank, heads), (4 * heads, dim), (heads, heads), (heads, heads)]
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) * 0.7 for size in sizes]


def output_and_gradients(function, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    return out, torch.autograd.grad(out, inputs, upstream)


def assert_same(fast, naive, inputs, dtype=torch.float64, names=NAMES):
    got, grads = output_and_gradients(fast, *inputs)
    want, wants = output_and_gradients(naive, *inputs)
    assert_close(got, want, OUTPUT[dtype], "output")
    for name, g, w in zip(names, grads, wants, strict=True):
        assert_close(g, w, GRADIENT[dtype], name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fast_equals_naive(shape, dtype):
    assert_same(composed_attention, naive_composed_attention, arguments(shape, dtype), dtype)


@pytest.mark.parametrize("elements", [1, 3 * 9 * 4, 2 * 3 * 9 * 9])
def test_chunks_join_seamlessly(monkeypatch, elements):
    """Chunks of one row, of some rows, of whole images; ragged at the end."""
    monkeypatch.setattr(chunks, "_CPU_CHUNK", elements)
    assert_same(composed_attention, naive_composed_attention, arguments((5, 3, 9, 4, 8, 6, 2)))


@pytest.mark.parametrize("function", [composed_attention, naive_composed_attention])
@pytest.mark.parametrize("name", ["dcmha_h4", "dcmha_h8"])
def test_golden_authors_composition(function, name):
    case, file = load_golden(name)
    leaves = {key.removeprefix("grad."): None for key in file if key.startswith("grad.")}
    leaves = {key: file[key].clone().requires_grad_() for key in leaves}
    dim, heads = case["dim"], case["heads"]
    arranged = (
        leaves["dw1"].reshape(dim, -1).t(),  # their axes: input, group of one, four, hidden
        leaves["qkw"][0],
        leaves["dd"].reshape(dim, -1).t(),
        leaves["static_pre"][0].t(),  # their matrices hold the weight of head i in head g at [i, g]
        leaves["static_post"][0].t(),
    )
    assert arranged[2].shape == (4 * heads, dim)
    operands = (*(leaves[key] for key in "qkvx"), *arranged)
    y = function(*operands)
    grads = torch.autograd.grad(y, list(leaves.values()), file["upstream"])
    assert_close(y, file["y"], GOLDEN_OUTPUT[torch.float64], "y")
    assert_close(
        composed_attention_weights(*operands), file["attention"], GOLDEN_OUTPUT[torch.float64], "weights"
    )
    for key, grad in zip(leaves, grads, strict=True):
        assert_close(grad, file["grad." + key], GOLDEN_GRADIENT[torch.float64], key)


def test_gradcheck():
    inputs = [x.requires_grad_() for x in arguments((2, 2, 3, 2, 3, 2, 1))]
    assert torch.autograd.gradcheck(composed_attention, inputs)


def test_second_derivative_and_forward_mode(monkeypatch):
    monkeypatch.setattr(chunks, "_CPU_CHUNK", 12)
    inputs = [x.requires_grad_() for x in arguments((2, 2, 3, 2, 3, 2, 1))]
    assert torch.autograd.gradgradcheck(composed_attention, inputs, fast_mode=True)
    assert torch.autograd.gradcheck(
        composed_attention, inputs, check_forward_ad=True, check_backward_ad=False
    )


def test_torch_func():
    inputs = arguments(SHAPES[0])

    def loss(function, *tensors):
        return function(*tensors).square().sum()

    every = tuple(range(9))
    got = torch.func.grad(partial(loss, composed_attention), argnums=every)(*inputs)
    want = torch.func.grad(partial(loss, naive_composed_attention), argnums=every)(*inputs)
    for name, g, w in zip(NAMES, got, want, strict=True):
        assert_close(g, w, GRADIENT[torch.float64], name)
    stacked = [torch.stack([x, 2 * x]) for x in inputs]
    mapped = torch.vmap(composed_attention)(*stacked)
    assert_close(mapped[1], composed_attention(*(x[1] for x in stacked)), OUTPUT[torch.float64])


@pytest.mark.parametrize("elements", [40, 1 << 20])
@pytest.mark.parametrize("kind", ["boolean", "additive", "padding"])
def test_masks(monkeypatch, kind, elements):
    """A learned bias gets its gradient in its own shape; a query with no key left attends to nothing."""
    monkeypatch.setattr(chunks, "_CPU_CHUNK", elements)
    batch, heads, tokens = 3, 3, 6
    inputs = arguments((batch, heads, tokens, 4, 8, 6, 2))
    generator = torch.Generator().manual_seed(3)
    if kind == "additive":
        for option in ("attn_mask", "attn_bias"):  # after the composition, and before it
            learned = torch.randn(heads, tokens, tokens, generator=generator, dtype=torch.float64)
            assert_same(
                lambda *t, option=option: composed_attention(*t[:9], **{option: t[9]}),
                lambda *t, option=option: naive_composed_attention(*t[:9], **{option: t[9]}),
                [*inputs, learned],
                names=[*NAMES, option],
            )
        return
    shape = (batch, 1, tokens, tokens) if kind == "boolean" else (batch, 1, 1, tokens)
    mask = torch.rand(shape, generator=generator) > 0.4
    mask[0, 0, 0] = False
    assert mask.any() and not mask.all()
    masked = partial(composed_attention, attn_mask=mask)
    assert_same(masked, partial(naive_composed_attention, attn_mask=mask), inputs)
    assert (masked(*inputs)[0, :, 0] == 0).all()


def test_rows_of_weights_are_rows_of_the_whole():
    inputs = arguments(SHAPES[0])
    mask = torch.randn(1, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = composed_attention_weights(*inputs, attn_mask=mask, attn_bias=2 * mask)
    some = composed_attention_weights(*inputs, attn_mask=mask, attn_bias=2 * mask, queries=[6, 1])
    assert_close(some, whole[:, :, [6, 1]], OUTPUT[torch.float64])
    got = composed_attention(*inputs, attn_mask=mask, attn_bias=2 * mask)
    assert_close(got, whole @ inputs[2], OUTPUT[torch.float64])


def test_identity_at_zero_second_factors():
    """Nothing composed: plain attention, and a gradient for what starts at zero."""
    inputs = arguments(SHAPES[0])
    rank = SHAPES[0][-1]
    inputs[5][:, :, rank:] = 0
    for index in (6, 7, 8):
        inputs[index] = torch.zeros_like(inputs[index])
    out, grads = output_and_gradients(composed_attention, *inputs)
    assert_close(out, F.scaled_dot_product_attention(*inputs[:3]), OUTPUT[torch.float64])
    assert (grads[5][:, :, rank:] != 0).all()
    for index in (6, 7, 8):
        assert (grads[index] != 0).all(), NAMES[index]


def test_a_source_is_weighed_wherever_it_gives():
    inputs, sources = arguments((2, 3, 9, 4, 8, 6, 2)), torch.tensor([0.0, 1.0, 0.4], dtype=torch.float64)
    assert_same(
        partial(composed_attention, sources=sources),
        partial(naive_composed_attention, sources=sources),
        inputs,
    )
    other = [x.clone() for x in inputs]
    for x in other[:3]:
        x[:, 0] += 1  # what head 0 attends to is nobody's business but its own values'
    got, want = (composed_attention(*x, sources=sources)[:, 1:] for x in (inputs, other))
    assert_close(got, want, OUTPUT[torch.float64])
    assert_close(
        composed_attention(*inputs, sources=torch.ones(3)), composed_attention(*inputs), OUTPUT[torch.float64]
    )
    with pytest.raises(ValueError, match="sources must be"):
        composed_attention(*inputs, sources=torch.ones(2))


def test_one_token_and_no_images():
    inputs = arguments((2, 3, 1, 4, 8, 6, 2))
    assert_close(composed_attention(*inputs), naive_composed_attention(*inputs), OUTPUT[torch.float64])
    empty = [x.requires_grad_() for x in arguments((0, 3, 5, 4, 8, 6, 2))]
    out = composed_attention(*empty)
    out.sum().backward()
    assert out.shape == (0, 3, 5, 4) and (empty[5].grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    inputs = arguments((2, 3, 17, 8, 24, 12, 2), dtype)
    want = naive_composed_attention(*(x.double() for x in inputs))
    got, grads = output_and_gradients(composed_attention, *inputs)
    assert got.dtype == dtype and all(g.dtype == dtype and g.isfinite().all() for g in grads)
    assert_close(got, want, OUTPUT[dtype])
    single = [x.float() for x in inputs]
    with torch.autocast("cpu", dtype):
        under = composed_attention(*single)
    assert under.dtype == dtype
    assert_close(under, want, OUTPUT[dtype])
    with torch.autocast("cpu", dtype):
        assert composed_attention(*(x.double() for x in inputs)).dtype == torch.float64


def test_large_logits_in_float16():
    """Queries and keys of 100 in 64 channels: unscaled logits would overflow float16."""
    inputs = arguments((1, 2, 5, 64, 8, 6, 2), torch.float16)
    inputs[0], inputs[1] = torch.full_like(inputs[0], 60.0), torch.full_like(inputs[1], 60.0)
    assert composed_attention(*inputs).isfinite().all()


def test_dropout_draws_the_same_again(monkeypatch):
    """With its masks held still dropout is linear like the rest, in chunks too."""
    monkeypatch.setattr(chunks, "_CPU_CHUNK", 20)
    inputs = [x.requires_grad_() for x in arguments((2, 2, 4, 2, 3, 2, 1))]

    def same_masks(*tensors):
        torch.manual_seed(3)
        return composed_attention(*tensors, dropout_p=0.4)

    assert torch.autograd.gradcheck(same_masks, inputs)
    assert not torch.equal(same_masks(*inputs), composed_attention(*inputs))
    assert torch.autograd.gradgradcheck(same_masks, inputs, fast_mode=True)


def test_kept_for_the_backward_pass_is_linear_in_tokens():
    def kept(tokens):
        inputs = [x.requires_grad_() for x in arguments((1, 2, tokens, 8, 8, 4, 2), torch.float32)]
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            composed_attention(*inputs)
        return sum(sizes)

    assert kept(512) <= 2.1 * kept(256)


@pytest.mark.parametrize("chunk", [chunks._CPU_CHUNK, pytest.param(1, marks=pytest.mark.soak)])
def test_compiles_whole(monkeypatch, chunk):
    monkeypatch.setattr(chunks, "_CPU_CHUNK", chunk)
    inputs = arguments((2, 3, 9, 8, 8, 6, 2), torch.float32)
    assert_same(
        torch.compile(composed_attention, fullgraph=True, backend="aot_eager"),
        naive_composed_attention,
        inputs,
        torch.float32,
    )


def saved_for_backward(out):
    """Elements that the graph behind ``out`` keeps."""
    nodes, seen, found = [out.grad_fn], set(), 0
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += sum(x.numel() for x in getattr(node, "saved_tensors", ()) if x is not None)
            nodes += [following for following, _ in node.next_functions]
    return found


@pytest.mark.parametrize("dropout_p", [pytest.param(0.0, marks=pytest.mark.soak), 0.4])
def test_compiled_chunks_keep_nothing_of_the_size_of_the_logits(monkeypatch, dropout_p):
    monkeypatch.setattr(chunks, "_CPU_CHUNK", 1)
    monkeypatch.setattr(chunks, "_COMPILED_CHUNKS", 3)
    batch, heads, tokens = 3, 2, 100
    inputs = [x.requires_grad_() for x in arguments((batch, heads, tokens, 2, 3, 2, 1), torch.float32)]
    compiled = torch.compile(
        partial(composed_attention, dropout_p=dropout_p), fullgraph=True, backend="aot_eager"
    )
    out = compiled(*inputs)
    assert saved_for_backward(out) < batch * heads * tokens**2
    # Linear in the values, so that the weights of both passes must be the same ones, whatever they are.
    upstream = torch.ones_like(out)
    (grad,) = torch.autograd.grad(out, inputs[2], upstream)
    assert torch.isclose((grad * inputs[2]).sum(), (out * upstream).sum(), rtol=1e-4)


def test_exports_with_a_dynamic_batch():
    class Module(torch.nn.Module):
        def forward(self, q, k, v, x, *weights):
            return composed_attention(q, k, v, x, *weights)

    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    inputs = tuple(arguments((2, 3, 9, 8, 8, 6, 2), torch.float32))
    program = torch.export.export(Module(), inputs, dynamic_shapes=(batch,) * 4 + ((None,) * 5,))
    other = arguments((5, 3, 9, 8, 8, 6, 2), torch.float32, seed=4)
    assert_close(program.module()(*other), Module()(*other), OUTPUT[torch.float32])


@pytest.mark.parametrize(
    ("index", "size", "message"),
    [
        (1, (2, 3, 7, 4), r"k must be .* \(2, 3, M, 5\), got \(2, 3, 7, 4\)"),
        (2, (2, 3, 4, 5), r"v must have the shape of k, \(2, 3, 7, 5\), got \(2, 3, 4, 5\)"),
        (3, (2, 6, 11), r"x must be the tokens .* \(2, 7, dim\), got \(2, 6, 11\)"),
        (4, (24, 12), r"hidden_weight must be \(4·hidden, dim\) = \(24, 11\), got \(24, 12\)"),
        (5, (4, 6, 3, 3), r"factor_weight must be \(4, hidden, 2·rank, num_heads\), got"),
        (6, (12, 12), r"diagonal_weight must be \(4·num_heads, dim\) = \(12, 11\)"),
        (7, (2, 2), r"pre_weight must be \(num_heads, num_heads\) = \(3, 3\)"),
    ],
)
def test_bad_input_is_named(index, size, message):
    inputs = arguments(SHAPES[0])
    inputs[index] = torch.zeros(size, dtype=torch.float64)
    for function in (composed_attention, naive_composed_attention):
        with pytest.raises(ValueError, match=message):
            function(*inputs)

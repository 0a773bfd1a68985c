"""Overlapped heads in windows: the fast path against the equations, with bias, mask and gains."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

import crosshead.ops.overlap.window_products as window_products
from crosshead.ops import overlap as ops
from crosshead.ops.overlap.windowed import packed_window_attention
from golden_files import load_golden
from packed import of_packed
from tolerances import GOLDEN_GRADIENT, GOLDEN_OUTPUT, GRADIENT, OUTPUT, assert_close

naive_overlapped_attention = of_packed(ops.naive_overlapped_attention)

# (images, windows, N, h, d, o): odd and prime sizes, one head, one token, no overlap, the widest overlap.
SHAPES = [
    (2, 3, 7, 3, 5, 2),
    (1, 4, 1, 2, 8, 3),
    (3, 1, 11, 1, 6, 4),
    (2, 5, 9, 5, 7, 7),
    (1, 2, 10, 4, 12, 0),
]


def operands(shape, dtype=torch.float64, seed=0):
    """qkv, bias, gain; and the mask, which closes whole regions as the shift does."""
    images, windows, tokens, heads, width, overlap = shape
    generator = torch.Generator().manual_seed(seed)
    sizes = [(images * windows, tokens, 3, heads, width), (heads, tokens, tokens), (heads, 2 * overlap)]
    tensors = [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]
    region = torch.randint(0, 2, (windows, tokens), generator=generator)
    mask = torch.where(region.unsqueeze(1) == region.unsqueeze(2), 0.0, -100.0).to(dtype)
    return tensors, mask


def naive(qkv, bias, gain, overlap, mask=None, **options):
    """The equations, the mask of each window repeated over the images."""
    if mask is not None:
        bias = (bias + mask.unsqueeze(1)).repeat(len(qkv) // len(mask), 1, 1, 1)
    return naive_overlapped_attention(qkv, overlap, attn_mask=bias, borrow_gain=gain, **options)


def fast(qkv, bias, gain, overlap, **options):
    return packed_window_attention(qkv, overlap, bias, borrow_gain=gain, **options)


def output_and_gradients(function, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    return out, torch.autograd.grad(out, inputs, upstream)


def assert_same(got, want, dtype):
    assert_close(got[0], want[0], OUTPUT[dtype], "output")
    for name, g, w in zip(["qkv", "bias", "gain"], got[1], want[1], strict=False):
        assert_close(g, w, GRADIENT[dtype], name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fast_equals_naive(shape, masked, dtype):
    tensors, mask = operands(shape, dtype)
    options = dict(overlap=shape[-1], mask=mask if masked else None, scale=0.4)
    want = output_and_gradients(partial(naive, **options), *tensors)
    if shape[2] == 1:  # one key: the weights are 1 whatever the logits, whose gradients are rounding alone
        assert_close(partial(fast, **options)(*tensors), want[0], OUTPUT[dtype])
        return
    assert_same(output_and_gradients(partial(fast, **options), *tensors), want, dtype)
    without = dict(options, gain=None)
    assert_same(
        output_and_gradients(partial(fast, **without), *tensors[:2]),
        output_and_gradients(partial(naive, **without), *tensors[:2]),
        dtype,
    )


@pytest.mark.parametrize("kept", [0, 1 << 21])
@pytest.mark.parametrize("elements", [1, 3 * 49, 2 * 3 * 49, 5 * 3 * 49, 9 * 3 * 49])
def test_chunks_join_seamlessly(monkeypatch, elements, kept):
    """Heads written again in the backward pass, and kept for it. Parts of an image, ragged at the end; whole images;
    without a mask any number of windows."""
    tensors, mask = operands((3, 4, 7, 3, 5, 2))
    monkeypatch.setattr(window_products, "_CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(window_products, "_KEPT_ELEMENTS", kept)
    for options in (dict(mask=mask), dict(mask=None)):
        got = output_and_gradients(partial(fast, overlap=2, **options), *tensors)
        want = output_and_gradients(partial(naive, overlap=2, **options), *tensors)
        assert_same(got, want, torch.float64)
        with torch.no_grad():
            assert torch.equal(fast(*tensors, overlap=2, **options), got[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("by", ["mask", "bias", "both"])
def test_a_query_without_a_key_attends_to_nothing(by, dtype):
    tensors, mask = operands((2, 3, 7, 3, 5, 2), dtype)
    mask[1, 4, :5] = -torch.inf
    tensors[1][:, 4, 5:] = -torch.inf
    if by != "both":
        mask[1, 4], tensors[1] = -torch.inf, torch.zeros_like(tensors[1])
    if by == "bias":
        mask, tensors[1][0, 2] = torch.zeros_like(mask), -torch.inf
    got = output_and_gradients(partial(fast, overlap=2, mask=mask), *tensors)
    exact = [x.double() for x in tensors]
    want = output_and_gradients(partial(naive, overlap=2, mask=mask.double()), *exact)
    assert (want[0] == 0).any()
    assert_same(got, want, dtype)
    assert ((got[0] == 0) == (want[0] == 0)).all()
    with torch.no_grad():
        assert torch.equal(fast(*tensors, overlap=2, mask=mask), got[0])
    dropped = fast(*tensors, overlap=2, mask=mask, dropout_p=0.1)  # PyTorch's kernel
    assert torch.isfinite(dropped).all() and (dropped[want[0] == 0] == 0).all()


def test_gradcheck():
    (qkv, bias, gain), mask = operands((2, 2, 4, 3, 3, 2))
    inputs = [x.requires_grad_() for x in (qkv, bias, gain)]
    assert torch.autograd.gradcheck(lambda *x: fast(*x, overlap=2, mask=mask), inputs)


@pytest.mark.parametrize("overlap", [0, 3])
def test_golden_authors_window_attention(overlap):
    case, file = load_golden({0: "swin_attention_o0", 3: "swin_attention_o3_masked"}[overlap])
    leaves = {
        name: file[name].clone().requires_grad_() for name in file if name == "x" or name.startswith("param.")
    }
    side, heads = case["window"], case["heads"]
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    rows, columns = (axis.flatten()[:, None] - axis.flatten()[None] + side - 1 for axis in (rows, columns))
    bias = leaves["param.relative_position_bias_table"][rows * (2 * side - 1) + columns].permute(2, 0, 1)
    for function in (fast, naive):
        qkv = F.linear(leaves["x"], leaves["param.qkv.weight"], leaves["param.qkv.bias"])
        qkv = qkv.unflatten(-1, (3, heads, case["dim"] // heads))
        y = F.linear(
            function(qkv, bias, None, overlap, mask=file.get("mask")),
            leaves["param.proj.weight"],
            leaves["param.proj.bias"],
        )
        grads = torch.autograd.grad(y, list(leaves.values()), file["upstream"], retain_graph=True)
        assert_close(y, file["y"], GOLDEN_OUTPUT[torch.float32], "y")
        for name, grad in zip(leaves, grads, strict=True):
            assert_close(
                grad, file["grad." + name.removeprefix("param.")], GOLDEN_GRADIENT[torch.float32], name
            )


@pytest.mark.parametrize("shape", [(2, 3, 7, 3, 5, 2), (1, 4, 16, 2, 8, 4)], ids=str)
def test_pure_bfloat16(shape):
    tensors, mask = operands(shape, torch.bfloat16)
    options = dict(overlap=shape[-1], mask=mask)
    got = output_and_gradients(partial(fast, **options), *tensors)
    want = output_and_gradients(
        partial(naive, **dict(options, mask=mask.double())), *(x.double() for x in tensors)
    )
    assert got[0].dtype == torch.bfloat16
    assert_same(got, want, torch.bfloat16)


def test_autocast_to_bfloat16():
    (qkv, bias, gain), mask = operands((2, 3, 9, 3, 8, 3), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = output_and_gradients(partial(fast, overlap=3, mask=mask), qkv, bias, gain)
    want = output_and_gradients(partial(naive, overlap=3, mask=mask), qkv, bias, gain)
    assert got[0].dtype == torch.bfloat16 and all(grad.dtype == torch.float32 for grad in got[1])
    assert_same(got, want, torch.bfloat16)


@pytest.mark.soak
def test_compiles_whole_forward_and_backward():
    tensors, mask = operands((2, 3, 9, 3, 8, 3), torch.float32)
    compiled = torch.compile(packed_window_attention, fullgraph=True)
    got = output_and_gradients(lambda x, b, g: compiled(x, 3, b, mask=mask, borrow_gain=g), *tensors)
    assert_same(got, output_and_gradients(partial(naive, overlap=3, mask=mask), *tensors), torch.float32)


def test_dropout_keeps_the_mean_and_drops():
    (qkv, bias, _), mask = operands((1, 2, 6, 2, 4, 2), torch.float32)
    torch.manual_seed(0)
    draw = partial(packed_window_attention, qkv, 2, bias, mask=mask)
    draws = torch.stack([draw(dropout_p=0.3) for _ in range(2000)])
    assert draws.std(0).max() > 0.05
    assert ((draws.mean(0) - draw()).abs() <= 5 * draws.std(0) / 2000**0.5).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(overlap=5), "between 0 and the head width 4, got 5"),
        (dict(overlap=-1), "between 0 and the head width 4, got -1"),
        (dict(dropout_p=1.0), r"\[0, 1\)"),
        (dict(bias=torch.zeros(3, 4, 4)), r"bias must be \(num_heads, N, N\) = \(3, 5, 5\), got \(3, 4, 4\)"),
        (dict(mask=torch.zeros(4, 5, 5)), r"divides the batch of 6, got \(4, 5, 5\)"),
        (dict(mask=torch.zeros(2, 4, 4)), r"mask must be \(windows, N, N\) = \(windows, 5, 5\)"),
        (dict(mask=torch.zeros(5, 5)), r"got \(5, 5\)"),
        (dict(borrow_gain=torch.ones(3, 3)), r"\(num_heads, 2·overlap\) = \(3, 4\), got \(3, 3\)"),
        (dict(qkv=torch.zeros(6, 5, 9, 4)), "packed as"),
    ],
)
def test_bad_input_is_named(change, message):
    fitting = dict(qkv=torch.zeros(6, 5, 3, 3, 4), overlap=2, bias=torch.zeros(3, 5, 5))
    with pytest.raises(ValueError, match=message):
        packed_window_attention(**fitting | change)

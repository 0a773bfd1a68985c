"""Re-attention: the fast path against the equations, the authors' numbers, and PyTorch's batch norm."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from test_dcmha import saved_for_backward

import crosshead.ops.chunks as chunks
from crosshead.ops.reattention import naive_reattention, reattention, reattention_weights
from golden_files import load_golden
from tolerances import GOLDEN_GRADIENT, GOLDEN_OUTPUT, GRADIENT, OUTPUT, assert_close

SHAPES = [(2, 3, 7, 5), (1, 1, 11, 6), (5, 5, 13, 3), (2, 2, 1, 4)]  # (B, h, N, d)
NAMES = ["q", "k", "v", "mix", "mix_bias", "norm_weight", "norm_bias"]


def arguments(shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    heads = shape[1]
    sizes = [shape] * 3 + [(heads, heads), (heads,), (heads,), (heads,)]
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


def running(heads, dtype=torch.float64):
    return torch.linspace(0.05, 0.2, heads, dtype=dtype), torch.linspace(0.01, 0.3, heads, dtype=dtype)


def output_and_gradients(function, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out, statistics = function(*inputs)
    generator = torch.Generator().manual_seed(2)
    upstream = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    return out, statistics, torch.autograd.grad(out, inputs, upstream)


def assert_same(fast, naive, inputs, dtype=torch.float64, names=NAMES):
    got, used, grads = output_and_gradients(fast, *inputs)
    # The equations in float64: they lose digits themselves where maps hardly differ from their mean.
    want, wanted, wants = output_and_gradients(naive, *(x.double() for x in inputs))
    assert_close(got, want, OUTPUT[dtype], "output")
    assert_close(used[0], wanted[0], OUTPUT[dtype], "mean")
    if wanted[1].max() > 1e-12:
        assert_close(used[1], wanted[1], GRADIENT[dtype], "variance")
    for name, g, w in zip(names, grads, wants, strict=True):
        if w.abs().max() > 1e-9 * grads[2].abs().max() and not (name == "mix_bias" and w.abs().max() < 1e-4):
            assert_close(g, w, GRADIENT[dtype], name)
        else:  # nothing but rounding
            assert g.abs().max() <= max(GRADIENT[dtype], 10 * w.abs().max()), name


@pytest.mark.parametrize("given", [False, True], ids=["batch", "given"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fast_equals_naive(shape, dtype, given):
    statistics = running(shape[1], dtype) if given else None
    assert_same(
        partial(reattention, statistics=statistics),
        partial(naive_reattention, statistics=statistics),
        arguments(shape, dtype),
        dtype,
    )


@pytest.mark.parametrize("elements", [1, 3 * 9 * 4, 2 * 3 * 9 * 9])
def test_chunks_join_seamlessly(monkeypatch, elements):
    monkeypatch.setattr(chunks, "_CPU_CHUNK", elements)
    assert_same(reattention, naive_reattention, arguments((5, 3, 9, 4)))


@pytest.mark.parametrize("function", [reattention, naive_reattention])
@pytest.mark.parametrize("name", ["reattention_train", "reattention_eval"])
def test_golden_authors_attention(function, name):
    case, file = load_golden(name)
    leaves = {
        key: file[key].clone().requires_grad_() for key in file if key == "x" or key.startswith("param.")
    }
    p = {key.removeprefix("param."): value for key, value in leaves.items()}
    qkv = F.linear(p["x"], p["qkv.weight"], p["qkv.bias"]).unflatten(-1, (3, case["heads"], -1))
    before = file["buffer.running_mean"], file["buffer.running_var"]
    out, (mean, variance) = function(
        *qkv.permute(2, 0, 3, 1, 4),
        p["reatten_matrix.weight"][:, :, 0, 0],
        p["reatten_matrix.bias"],
        p["var_norm.weight"],
        p["var_norm.bias"],
        statistics=None if case["training"] else before,
        eps=case["batch_norm_eps"],
    )
    y = F.linear(out.transpose(1, 2).flatten(2), p["proj.weight"], p["proj.bias"])
    grads = torch.autograd.grad(y, list(leaves.values()), file["upstream"])
    assert_close(y, file["y"], GOLDEN_OUTPUT[torch.float64], "y")
    for key, grad in zip(leaves, grads, strict=True):
        want = file["grad." + key.removeprefix("param.")]
        if want.abs().max() < 1e-12:  # the bias that the norm cancels
            assert grad.abs().max() < 1e-12, key
        else:
            assert_close(grad, want, GOLDEN_GRADIENT[torch.float64], key)
    if case["training"]:
        entries = case["batch"] * case["tokens"] ** 2
        after = [
            old + 0.1 * (new - old)
            for old, new in zip(before, (mean, variance * entries / (entries - 1)), strict=True)
        ]
        assert_close(after[0], file["after.running_mean"], GOLDEN_OUTPUT[torch.float64])
        assert_close(after[1], file["after.running_var"], GOLDEN_OUTPUT[torch.float64])


@pytest.mark.parametrize("given", [False, True], ids=["batch", "given"])
def test_gradcheck(given):
    inputs = [x.requires_grad_() for x in arguments((2, 2, 3, 2))]
    statistics = running(2) if given else None
    assert torch.autograd.gradcheck(lambda *t: reattention(*t, statistics=statistics)[0], inputs)


def test_second_derivative_and_forward_mode(monkeypatch):
    monkeypatch.setattr(chunks, "_CPU_CHUNK", 12)
    inputs = [x.requires_grad_() for x in arguments((2, 2, 3, 2))]
    function = lambda *t: reattention(*t)[0]  # noqa: E731
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, check_backward_ad=False)


def test_torch_func():
    inputs = arguments(SHAPES[0])

    def loss(function, *tensors):
        return function(*tensors)[0].square().sum()

    every = tuple(range(len(inputs)))
    got = torch.func.grad(partial(loss, reattention), argnums=every)(*inputs)
    want = torch.func.grad(partial(loss, naive_reattention), argnums=every)(*inputs)
    for name, g, w in zip(NAMES, got, want, strict=True):
        if name != "mix_bias":
            assert_close(g, w, GRADIENT[torch.float64], name)
    # Each slice has the statistics of its own batch.
    stacked = [torch.stack([x, 2 * x]) for x in inputs]
    mapped = torch.vmap(lambda *t: reattention(*t)[0])(*stacked)
    assert_close(mapped[1], reattention(*(x[1] for x in stacked))[0], OUTPUT[torch.float64])


def test_a_bias_of_the_logits_learns(monkeypatch):
    monkeypatch.setattr(chunks, "_CPU_CHUNK", 40)
    bias = torch.randn(3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    assert_same(
        lambda *t: reattention(*t[:7], attn_bias=t[7]),
        lambda *t: naive_reattention(*t[:7], attn_bias=t[7]),
        [*arguments((3, 3, 6, 4)), bias],
        names=[*NAMES, "attn_bias"],
    )


def test_nearly_uniform_maps_keep_their_variance():
    """Maps that differ by a thousandth of 1/N: squares of the mean would leave nothing of the variance in float32."""
    inputs = arguments((4, 3, 50, 8), torch.float32)
    inputs[0] = inputs[0] * 1e-3
    _, (_, got) = reattention(*inputs)
    _, (_, want) = naive_reattention(*(x.double() for x in inputs))
    assert_close(got, want, 1e-4)


def test_fewer_queries_than_keys():
    q, k, v, *rest = arguments((2, 3, 7, 5))
    assert_same(reattention, naive_reattention, [q[:, :, :2], k, v, *rest])


def test_is_batch_norm_of_the_mixed_maps():
    q, k, v, mix, bias, weight, norm_bias = inputs = arguments((3, 4, 8, 5))
    maps = torch.softmax(q @ k.mT * 5**-0.5, dim=-1)
    mixed = F.conv2d(maps, mix[:, :, None, None], bias)
    normed = F.batch_norm(mixed, None, None, weight, norm_bias, training=True)
    assert_close(reattention(*inputs)[0], normed @ v, OUTPUT[torch.float64])
    assert_close(reattention_weights(*inputs), normed, OUTPUT[torch.float64])


def test_no_images():
    inputs = [x.requires_grad_() for x in arguments((0, 3, 5, 4))]
    out, (mean, variance) = reattention(*inputs)
    out.sum().backward()
    assert out.shape == (0, 3, 5, 4) and mean.isfinite().all() and variance.isfinite().all()
    assert inputs[3].grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    inputs = arguments((2, 3, 17, 8), dtype)
    want = naive_reattention(*(x.double() for x in inputs))[0]
    got, _, grads = output_and_gradients(reattention, *inputs)
    assert got.dtype == dtype and all(g.dtype == dtype and g.isfinite().all() for g in grads)
    assert_close(got, want, OUTPUT[dtype])
    with torch.autocast("cpu", dtype):
        under = reattention(*(x.float() for x in inputs))[0]
        assert reattention(*(x.double() for x in inputs))[0].dtype == torch.float64
    assert under.dtype == dtype
    assert_close(under, want, OUTPUT[dtype])


def test_dropout_draws_the_same_again(monkeypatch):
    """The statistics are those of the dropped maps, and both passes drop the same."""
    monkeypatch.setattr(chunks, "_CPU_CHUNK", 20)
    inputs = [x.requires_grad_() for x in arguments((2, 2, 4, 2))]

    def same_masks(*tensors):
        torch.manual_seed(3)
        return reattention(*tensors, dropout_p=0.4)

    assert torch.autograd.gradcheck(lambda *t: same_masks(*t)[0], inputs)
    # Of normalised maps the mean is β; each column of V then sums up what the norm left.
    q, k, _, *rest = inputs
    ones = torch.ones_like(q)
    out = reattention(q, k, ones, *rest, dropout_p=0.4)[0]
    assert_close(out.mean((0, 2, 3)), 4 * rest[-1], 1e-10)


def test_kept_for_the_backward_pass_is_linear_in_tokens():
    def kept(tokens):
        inputs = [x.requires_grad_() for x in arguments((1, 2, tokens, 8), torch.float32)]
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            reattention(*inputs)
        return sum(sizes)

    assert kept(512) <= 2.1 * kept(256)


@pytest.mark.parametrize("chunk", [chunks._CPU_CHUNK, pytest.param(1, marks=pytest.mark.soak)])
def test_compiles_whole(monkeypatch, chunk):
    monkeypatch.setattr(chunks, "_CPU_CHUNK", chunk)
    assert_same(
        torch.compile(reattention, fullgraph=True, backend="aot_eager"),
        naive_reattention,
        arguments((2, 3, 9, 8), torch.float32),
        torch.float32,
    )


def test_compiled_it_keeps_no_maps_and_drops_the_same_in_all_of_them(monkeypatch):
    monkeypatch.setattr(chunks, "_CPU_CHUNK", 1)
    batch, heads, tokens = 2, 2, 64
    inputs = [x.requires_grad_() for x in arguments((batch, heads, tokens, 4), torch.float32)]
    compiled = torch.compile(partial(reattention, dropout_p=0.4), fullgraph=True, backend="aot_eager")
    out, _ = compiled(*inputs)
    assert saved_for_backward(out) < batch * heads * tokens**2
    # Without the norm's bias linear in the values; and what the norm left is what sums up ones.
    q, k, v, *rest = inputs
    (grad,) = torch.autograd.grad(out.sum(), v, retain_graph=True)
    assert torch.isclose((grad * v).sum(), out.sum(), rtol=1e-3, atol=1e-2)
    out, _ = compiled(q, k, torch.ones_like(q), *rest)
    assert_close(out.mean((0, 2, 3)), tokens * rest[-1], 1e-4)


def test_exports_with_a_dynamic_batch():
    class Module(torch.nn.Module):
        def forward(self, q, k, v, *rest):
            return reattention(q, k, v, *rest, statistics=running(3, torch.float32))[0]

    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    inputs = tuple(arguments((2, 3, 9, 8), torch.float32))
    program = torch.export.export(Module(), inputs, dynamic_shapes=(batch,) * 3 + ((None,) * 4,))
    other = arguments((5, 3, 9, 8), torch.float32, seed=4)
    assert_close(program.module()(*other), Module()(*other), OUTPUT[torch.float32])


@pytest.mark.parametrize("function", [reattention, naive_reattention])
def test_bad_input_is_named(function):
    inputs = arguments(SHAPES[0])
    with pytest.raises(ValueError, match="takes no mask: its norm gives a hidden key the weight"):
        function(*inputs, attn_bias=torch.ones(7, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="got one image of one token; give a larger batch, or the running"):
        function(*arguments((1, 3, 1, 4)))
    with pytest.raises(ValueError, match=r"variance must be \(num_heads,\) = \(3,\), got \(2,\)"):
        function(*inputs, statistics=(torch.zeros(3), torch.ones(2)))
    with pytest.raises(ValueError, match=r"mix must be \(num_heads, num_heads\) = \(3, 3\)"):
        function(*inputs[:3], torch.eye(2), *inputs[4:])

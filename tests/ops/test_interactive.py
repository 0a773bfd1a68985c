"""Interactive attention: every path against the equations, the golden numbers, and what it reduces to."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

import crosshead.ops.interactive.fast as fast
import crosshead.ops.interactive.landmarks as landmarks
import crosshead.ops.interactive.tiled as tiled
from crosshead.ops import paths
from crosshead.ops.interactive import attention_factors, interactive_attention, naive_interactive_attention
from crosshead.ops.interactive.naive import cell_spans
from golden_files import load_golden
from tolerances import GOLDEN_GRADIENT, GOLDEN_OUTPUT, GRADIENT, OUTPUT, assert_close

# (B, heads, head_dim, grid, landmarks, prefix): odd and prime sizes, one head, one token, a row, a column, L above N.
SHAPES = [
    (2, 3, 5, (5, 7), (3, 2), 0),
    (1, 4, 8, (1, 1), (7, 7), 0),
    (3, 1, 6, (4, 4), (2, 2), 1),
    (2, 2, 7, (1, 13), (1, 5), 3),
    (1, 5, 4, (11, 1), (4, 4), 0),
    (2, 3, 4, (3, 5), (7, 7), 2),
]
BACKENDS = ["stored", "recompute"]


@pytest.fixture(params=["A_K in blocks", "A_K whole"])
def small_blocks(monkeypatch, request):
    """Blocks of four tokens, so that the block-wise path has seams at these sizes; A_K takes two passes or one."""
    monkeypatch.setattr(tiled, "BLOCK_ELEMENTS", 16)
    if request.param == "A_K in blocks":
        monkeypatch.setattr(tiled, "WHOLE_ELEMENTS", 16)
    monkeypatch.setattr(tiled, "TOKEN_MULTIPLE", 4)


def operands(shape, dtype=torch.float64, seed=0, packed=False):
    """q, k, v and the two mixing matrices; ``packed`` gives the strided views of one projection's output."""
    batch, heads, width, grid, _, prefix = shape
    generator = torch.Generator().manual_seed(seed)
    tokens = grid[0] * grid[1] + prefix
    qkv = torch.randn(batch, tokens, 3, heads, width, generator=generator, dtype=torch.float64).to(dtype)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    mixes = torch.eye(heads, dtype=dtype) + 0.3 * torch.randn(
        2, heads, heads, generator=generator, dtype=torch.float64
    ).to(dtype)
    return [t if packed else t.contiguous() for t in (q, k, v)] + [mixes[0], mixes[1]]


def options(shape):
    return dict(grid=shape[3], landmarks=shape[4], num_prefix_tokens=shape[5])


def call(function, shape, **more):
    return lambda q, k, v, m_q=None, m_k=None: function(
        q, k, v, mix_query=m_q, mix_key=m_k, **options(shape), **more
    )


def output_and_gradients(function, inputs):
    """The output and the gradient of every input; a strided input stays the view that it is."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    return out, torch.autograd.grad(out, inputs, upstream)


def assert_agrees(got, want, dtype):
    assert_close(got[0], want[0], OUTPUT[dtype], "output")
    largest = max(w.abs().max() for w in want[1])
    for name, g, w in zip(("q", "k", "v", "mix_query", "mix_key"), got[1], want[1], strict=False):
        if w.any():
            assert_close(g, w, GRADIENT[dtype], f"gradient of {name}")
        else:  # one token: its softmax is constant
            assert g.abs().max() <= GRADIENT[dtype] * largest, f"gradient of {name}"


@pytest.mark.parametrize("mixed", [True, False], ids=["mixed", "apart"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "contiguous"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fast_equals_naive(shape, backend, dtype, packed, mixed, small_blocks):
    inputs = operands(shape, dtype, packed=packed)[: 5 if mixed else 3]
    got = output_and_gradients(call(interactive_attention, shape, backend=backend), inputs)
    want = output_and_gradients(call(naive_interactive_attention, shape), inputs)
    assert_agrees(got, want, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_mixing_matrix_alone(backend, small_blocks):
    shape = SHAPES[0]
    for kept in ("mix_query", "mix_key"):
        q, k, v, mix, _ = operands(shape)

        def with_one(q, k, v, m, function=interactive_attention, kept=kept, **more):
            return function(q, k, v, **{kept: m}, **options(shape), **more)

        got = output_and_gradients(partial(with_one, backend=backend), (q, k, v, mix))
        want = output_and_gradients(partial(with_one, function=naive_interactive_attention), (q, k, v, mix))
        assert_agrees(got, want, torch.float64)


@pytest.mark.parametrize(
    "function", [interactive_attention, naive_interactive_attention], ids=["fast", "naive"]
)
@pytest.mark.parametrize("name", ["square", "uneven", "small_grid", "prefix"])
def test_golden_literal_evaluation(name, function):
    case, file = load_golden(f"imhsa_{name}")
    names = ("q", "k", "v", "mix_query", "mix_key")
    given = dict(
        grid=tuple(case["grid"]), landmarks=case["landmarks"], num_prefix_tokens=case["prefix_tokens"]
    )
    backends = [dict(backend=backend) for backend in BACKENDS] if function is interactive_attention else [{}]
    for backend in backends:
        q, k, v, m_q, m_k = leaves = [file[key].clone().requires_grad_() for key in names]
        y = function(q, k, v, mix_query=m_q, mix_key=m_k, **given, **backend)
        grads = torch.autograd.grad(y, leaves, file["upstream"])
        assert_close(y, file["y"], GOLDEN_OUTPUT[torch.float64], "y")
        for key, grad in zip(names, grads, strict=True):
            assert_close(grad, file[f"grad.{key}"], GOLDEN_GRADIENT[torch.float64], key)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend, small_blocks):
    shape = (1, 2, 3, (3, 2), (2, 1), 1)
    inputs = [t.requires_grad_() for t in operands(shape)]
    assert torch.autograd.gradcheck(call(interactive_attention, shape, backend=backend), inputs)


def test_identity_mixing_is_no_mixing():
    shape = SHAPES[0]
    q, k, v, *_ = operands(shape)
    identity = torch.eye(3, dtype=torch.float64)
    mixed = call(interactive_attention, shape)(q, k, v, identity, identity)
    assert_close(mixed, call(interactive_attention, shape)(q, k, v), OUTPUT[torch.float64])


def test_a_landmark_a_token_is_attention_twice():
    """With every cell one token and no mixing, A_Q and A_K are both plain attention."""
    shape = (2, 3, 5, (4, 5), (4, 5), 1)
    q, k, v, *_ = operands(shape)
    want = F.scaled_dot_product_attention(q, k, F.scaled_dot_product_attention(q, k, v))
    assert_close(call(interactive_attention, shape)(q, k, v), want, OUTPUT[torch.float64])


def test_one_head_mixes_by_scaling():
    shape = SHAPES[2]
    q, k, v, *_ = operands(shape)
    two, three = torch.full((1, 1), 2.0, dtype=torch.float64), torch.full((1, 1), 3.0, dtype=torch.float64)
    want = 6.0 * call(interactive_attention, shape)(q, k, v)
    assert_close(call(interactive_attention, shape)(q, k, v, two, three), want, OUTPUT[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_head_hears_of_another_only_through_mixing(backend):
    shape = SHAPES[0]
    q, k, v, m_q, m_k = operands(shape)
    moved = q.clone()
    moved[:, 0] += torch.randn(
        moved[:, 0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9)
    )

    def change(*mixes):
        run = call(interactive_attention, shape, backend=backend)
        return (run(moved, k, v, *mixes) - run(q, k, v, *mixes)).abs().amax((0, 2, 3))

    assert (change()[1:] == 0).all() and (change(m_q, m_k)[1:] > 1e-6).all()


def test_scale_is_the_one_given():
    shape = SHAPES[0]
    q, k, v, *_ = operands(shape)
    want = call(interactive_attention, shape)(q * (0.1 * 5**0.5), k, v)
    # A factor on q reaches the scores of both A_Q and A_K: they are linear in q, pooled or not.
    assert_close(call(interactive_attention, shape, scale=0.1)(q, k, v), want, OUTPUT[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
def test_pure_bfloat16(backend, small_blocks):
    shape = (2, 3, 16, (5, 7), (3, 2), 1)
    inputs = operands(shape, torch.bfloat16, packed=True)
    got = output_and_gradients(call(interactive_attention, shape, backend=backend), inputs)
    want = output_and_gradients(call(naive_interactive_attention, shape), [t.double() for t in inputs])
    assert got[0].dtype == torch.bfloat16 and all(g.dtype == torch.bfloat16 for g in got[1])
    assert_agrees(got, want, torch.bfloat16)


@pytest.mark.parametrize("backend", BACKENDS)
def test_softmax_statistics_are_float32(backend):
    """4,096 equal scores: a bfloat16 sum would stick at 256, and the rows of A_K would sum to 16."""
    q = torch.ones(1, 2, 4096, 8, dtype=torch.bfloat16)
    out = interactive_attention(q, q, q, (64, 64), backend=backend)
    assert_close(out, q, OUTPUT[torch.bfloat16])


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_gives_bfloat16_and_float32_gradients(backend):
    shape = (2, 3, 16, (5, 7), (3, 2), 1)
    inputs = operands(shape, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = output_and_gradients(call(interactive_attention, shape, backend=backend), inputs)
    want = output_and_gradients(call(naive_interactive_attention, shape), inputs)
    assert got[0].dtype == torch.bfloat16 and all(g.dtype == torch.float32 for g in got[1])
    assert_agrees(got, want, torch.bfloat16)


@pytest.mark.parametrize(
    "function", [interactive_attention, naive_interactive_attention], ids=["fast", "naive"]
)
def test_dropout_keeps_the_mean_and_drops(function):
    shape = (1, 2, 4, (2, 3), (2, 2), 0)
    q, k, v, m_q, m_k = operands(shape, torch.float32)
    torch.manual_seed(0)
    draws = torch.stack([call(function, shape, dropout_p=0.3)(q, k, v, m_q, m_k) for _ in range(2000)])
    assert draws.std(0).max() > 0.05
    # 2,000 draws of values of about one: their mean lies within a tenth.
    assert (draws.mean(0) - call(function, shape)(q, k, v, m_q, m_k)).abs().max() < 0.1


def test_recompute_drops_the_same_entries_again():
    shape = SHAPES[0]
    results = []
    for backend in BACKENDS:
        torch.manual_seed(5)
        run = call(interactive_attention, shape, dropout_p=0.4, backend=backend)
        results.append(output_and_gradients(run, operands(shape)))
    assert_agrees(results[1], results[0], torch.float64)


def kept_bytes(function):
    """Bytes that autograd keeps for the backward pass, each storage counted once."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = function()
    return sum(storages.values()), out


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_is_linear_in_tokens(backend):
    def kept(rows):
        shape = (1, 4, 8, (rows, 32), (7, 7), 0)
        inputs = [t.requires_grad_() for t in operands(shape, torch.float32)]
        return kept_bytes(lambda: call(interactive_attention, shape, backend=backend)(*inputs))[0]

    assert kept(64) <= 2.05 * kept(32)


def test_recompute_keeps_little_beside_its_operands():
    """Beside q, k, v: the landmarks, the context and one number a row of A_K, which don't grow with N."""
    shape = (1, 4, 8, (64, 64), (7, 7), 0)
    inputs = [t.requires_grad_() for t in operands(shape, torch.float32)]
    given = sum(t.untyped_storage().nbytes() for t in inputs)
    beside = {
        backend: kept_bytes(
            lambda backend=backend: call(interactive_attention, shape, backend=backend)(*inputs)
        )[0]
        - given
        for backend in BACKENDS
    }
    assert beside["recompute"] < 2**16 < beside["stored"] / 30


@pytest.mark.parametrize("backend", BACKENDS)
def test_captured_whole_forward_and_backward(backend):
    shape = SHAPES[0]
    inputs = operands(shape, packed=True)
    compiled = torch.compile(
        call(interactive_attention, shape, backend=backend), fullgraph=True, backend="aot_eager"
    )
    got = output_and_gradients(compiled, inputs)
    assert_agrees(got, output_and_gradients(call(naive_interactive_attention, shape), inputs), torch.float64)


@pytest.mark.soak
def test_compiles_whole_forward_and_backward():
    shape = (2, 3, 8, (5, 7), (3, 2), 1)
    inputs = operands(shape, torch.float32, packed=True)
    compiled = torch.compile(call(interactive_attention, shape), fullgraph=True)
    got = output_and_gradients(compiled, inputs)
    want = output_and_gradients(call(naive_interactive_attention, shape), inputs)
    assert_agrees(got, want, torch.float32)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_exports_with_a_dynamic_batch(backend):
    shape = (2, 3, 5, (5, 7), (3, 2), 1)

    class Module(torch.nn.Module):
        def forward(self, q, k, v, m_q, m_k):
            return call(interactive_attention, shape, backend=backend)(q, k, v, m_q, m_k)

    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(
        Module(), tuple(operands(shape)), dynamic_shapes=(batch, batch, batch, None, None)
    )
    larger = operands((5, *shape[1:]), seed=3)
    assert_close(
        program.module()(*larger), call(interactive_attention, shape)(*larger), OUTPUT[torch.float64]
    )


@pytest.mark.parametrize("forced", [1, 1 << 62], ids=["recomputes", "stores"])
def test_auto_follows_the_size(forced, monkeypatch):
    monkeypatch.setattr(paths, "RECOMPUTE_FROM", forced)
    shape = SHAPES[0]
    inputs = [t.requires_grad_() for t in operands(shape)]
    out = call(interactive_attention, shape)(*inputs)
    assert ("RecomputedAttention" in type(out.grad_fn).__name__) == (forced == 1)
    assert_close(out, call(naive_interactive_attention, shape)(*inputs), OUTPUT[torch.float64])


@pytest.mark.parametrize("at_once", [1 << 24, 0], ids=["A_K at once", "A_K in two passes"])
@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_without_a_gradient_are_the_equations(shape, at_once, small_blocks, monkeypatch):
    monkeypatch.setattr(tiled, "AT_ONCE_ELEMENTS", at_once)
    for dtype in (torch.float64, torch.float32):
        inputs = operands(shape, dtype, packed=True)
        for given in (inputs, inputs[:3]):
            got = call(interactive_attention, shape, backend="recompute")(*given)
            assert got.grad_fn is None
            assert_close(got, call(naive_interactive_attention, shape)(*given), OUTPUT[dtype])


@pytest.mark.parametrize("size", [(1, 8, 32, (56, 56), (7, 7), 0), (1, 5, 16, (71, 67), (7, 5), 3)])
def test_tiles_without_a_gradient_at_their_own_size(size):
    """More than one tile, and A_K beyond one: what the smaller tests reach by smaller tiles only."""
    assert size[1] * size[3][0] * size[3][1] * 35 > tiled.BLOCK_ELEMENTS
    inputs = operands(size, torch.float32, packed=True)
    got = call(interactive_attention, size, backend="recompute")(*inputs)
    assert_close(got, call(naive_interactive_attention, size)(*inputs), OUTPUT[torch.float32])


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_no_images_give_no_output(backend):
    shape = (0, *SHAPES[0][1:])
    inputs = operands(shape)
    assert call(interactive_attention, shape, backend=backend)(*inputs).shape == inputs[0].shape


def _runs_in_tiles(monkeypatch, run):
    calls = []
    original = fast.attend_tiled
    with monkeypatch.context() as patch:
        patch.setattr(paths, "TILE_FROM", 1)
        patch.setattr(fast, "attend_tiled", lambda *a, **k: calls.append(1) or original(*a, **k))
        run()
    return bool(calls)


def test_auto_without_a_gradient_takes_tiles_in_full_precision(monkeypatch):
    shape = SHAPES[0]
    attend = call(interactive_attention, shape)
    inputs = [t.requires_grad_() for t in operands(shape, torch.float32)]
    with torch.no_grad():
        assert _runs_in_tiles(monkeypatch, lambda: attend(*inputs))
        assert not _runs_in_tiles(monkeypatch, lambda: attend(*(t.bfloat16() for t in inputs)))
    with torch.inference_mode():
        assert _runs_in_tiles(monkeypatch, lambda: attend(*inputs))
    assert not _runs_in_tiles(monkeypatch, lambda: attend(*inputs))


def test_auto_without_a_gradient_can_still_be_transformed(monkeypatch):
    """``torch.func`` and forward-mode differentiation, which the tiles cannot follow."""
    monkeypatch.setattr(paths, "TILE_FROM", 1)
    shape = SHAPES[0]
    inputs = operands(shape)
    q, rest = inputs[0], inputs[1:]
    function = partial(_of_query, call(interactive_attention, shape), rest)
    naive = partial(_of_query, call(naive_interactive_attention, shape), rest)
    tangent = torch.ones_like(q)
    want = torch.func.jvp(naive, (q,), (tangent,))
    for got, one in zip(torch.func.jvp(function, (q,), (tangent,)), want, strict=True):
        assert_close(got, one, OUTPUT[torch.float64])
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(function(forward_ad.make_dual(q, tangent)))
    assert_close(dual.tangent, want[1], GRADIENT[torch.float64])
    with forward_ad.dual_level():
        by_key = forward_ad.make_dual(inputs[1], inputs[2])  # ones would shift every score alike: no change
        changed = forward_ad.unpack_dual(call(interactive_attention, shape)(q, by_key, *inputs[2:]))
        wanted = forward_ad.unpack_dual(call(naive_interactive_attention, shape)(q, by_key, *inputs[2:]))
    assert_close(changed.tangent, wanted.tangent, GRADIENT[torch.float64])
    several = torch.stack([q, 2 * q])
    assert_close(torch.func.vmap(function)(several)[1], naive(2 * q), OUTPUT[torch.float64])


def _of_query(attend, rest, q):
    return attend(q, *rest)


def test_factors_are_those_of_the_output():
    shape = SHAPES[3]
    q, k, v, m_q, m_k = operands(shape)
    factors = attention_factors(q, k, mix_query=m_q, mix_key=m_k, **options(shape))
    ones = torch.ones((), dtype=torch.float64)
    assert_close(factors.query.sum(-1), ones.expand(2, 2, 16), OUTPUT[torch.float64])
    assert_close(factors.key.sum(-1), ones.expand(2, 2, 8), OUTPUT[torch.float64])
    assert_close(
        factors.mixed_query, torch.einsum("gi,binl->bgnl", m_q, factors.query), OUTPUT[torch.float64]
    )
    assert_close(factors.mixed_key, torch.einsum("gi,biln->bgln", m_k, factors.key), OUTPUT[torch.float64])
    want = call(naive_interactive_attention, shape)(q, k, v, m_q, m_k)
    assert_close(factors.effective_map() @ v, want, OUTPUT[torch.float64])


def test_effective_map_of_chosen_heads_and_queries():
    shape = SHAPES[3]
    q, k, _, m_q, m_k = operands(shape)
    factors = attention_factors(q, k, mix_query=m_q, mix_key=m_k, **options(shape))
    rows = factors.effective_map(heads=[1], queries=[0, 7])
    assert rows.shape == (2, 1, 2, 16)
    assert_close(rows, factors.effective_map()[:, 1:, [0, 7]], OUTPUT[torch.float64])
    with pytest.raises(ValueError, match=r"heads must be indices from 0 to 1, got \[2\]"):
        factors.effective_map(heads=[2])
    with pytest.raises(ValueError, match=r"queries must be indices from 0 to 15, got \[-1, 16\]"):
        factors.effective_map(queries=[-1, 3, 16])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(grid=(4, 4)), "4 x 4 after 0 prefix tokens has 16 tokens, got 15"),
        (dict(grid=(15,)), r"grid must be two sizes .* got \(15,\)"),
        (dict(grid=(0, 15)), r"grid must be two sizes of at least 1 .* got \(0, 15\)"),
        (dict(num_prefix_tokens=1), "3 x 5 after 1 prefix tokens has 16 tokens, got 15"),
        (dict(num_prefix_tokens=-1), "num_prefix_tokens must be at least 0, got -1"),
        (dict(landmarks=0), "landmarks must be .* at least 1 .* got 0"),
        (dict(landmarks=(3, 0)), r"landmarks must be .* got \(3, 0\)"),
        (dict(landmarks=(3, 3, 3)), r"landmarks must be one or two counts .* got \(3, 3, 3\)"),
        (
            dict(mix_query=torch.eye(4)),
            r"mix_query must be \(num_heads, num_heads\) = \(3, 3\), got \(4, 4\)",
        ),
        (dict(mix_key=torch.ones(3)), r"mix_key must be \(num_heads, num_heads\) = \(3, 3\), got \(3,\)"),
        (
            dict(k=torch.zeros(2, 3, 14, 4)),
            r"v must have the shape of k, \(2, 3, 14, 4\), got \(2, 3, 15, 4\)",
        ),
        (dict(v=torch.zeros(2, 3, 15, 4, dtype=torch.float64)), "v must have the dtype and device of q"),
        (
            dict(q=torch.zeros(3, 15, 4)),
            r"q must be floating point of shape .* got torch.float32, \(3, 15, 4\)",
        ),
        (dict(q=torch.zeros(2, 3, 15, 4, dtype=torch.int64)), "q must be floating point .* got torch.int64"),
        (dict(dropout_p=1.0), r"dropout_p must lie in \[0, 1\), got 1.0"),
    ],
)
@pytest.mark.parametrize(
    "function", [interactive_attention, naive_interactive_attention], ids=["fast", "naive"]
)
def test_bad_input_is_named(function, change, message):
    zeros = torch.zeros(2, 3, 15, 4)
    with pytest.raises(ValueError, match=message):
        function(**(dict(q=zeros, k=zeros, v=zeros, grid=(3, 5)) | change))


def test_unknown_mode_is_named():
    zeros = torch.zeros(1, 1, 4, 2)
    with pytest.raises(
        ValueError, match="backend must be one of auto, stored, recompute, triton, got 'fast'"
    ):
        interactive_attention(zeros, zeros, zeros, (2, 2), backend="fast")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_traced_pooling_is_pytorchs_to_the_bit(dtype):
    like = torch.empty(0, dtype=dtype)
    for length in [*range(1, 40), 300, 513]:
        for cells in range(1, min(length, 16) + 1):
            got = landmarks._compared_pooling_matrix(length, cells, like)
            assert torch.equal(got, landmarks.pooling_matrix(length, cells, like)) and got.dtype == dtype


def test_mode_is_called_backend_now():
    q = torch.randn(1, 2, 9, 4)
    with pytest.warns(FutureWarning, match="use backend="):
        got = interactive_attention(q, q, q, (3, 3), mode="stored")
    assert torch.equal(got, interactive_attention(q, q, q, (3, 3), backend="stored"))


def test_padding_takes_no_part():
    """Against the equations; images of different padding, a cell that is all padding, both mixings."""
    q, k, v = (torch.randn(2, 3, 17, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mixes = dict(mix_query=torch.randn(3, 3).double(), mix_key=torch.randn(3, 3).double())
    mask = torch.ones(2, 1, 1, 17, dtype=torch.bool)
    mask[0, ..., 11:] = mask[1, ..., 5] = False
    given = dict(landmarks=2, num_prefix_tokens=1, attn_mask=mask, **mixes)
    got, want = (f(q, k, v, (4, 4), **given) for f in (interactive_attention, naive_interactive_attention))
    assert_close(got, want, OUTPUT[torch.float64])
    upstream = torch.randn(got.shape, dtype=torch.float64) * mask.transpose(2, 3)
    grads, wants = (torch.autograd.grad(out, (q, k, v), upstream) for out in (got, want))
    for grad, wanted in zip(grads, wants, strict=True):
        assert_close(grad, wanted, GRADIENT[torch.float64])
    with pytest.raises(ValueError, match="takes no mask but one of padding"):
        interactive_attention(q, k, v, (4, 4), attn_mask=mask.expand(2, 3, 17, 17), num_prefix_tokens=1)
    with pytest.raises(ValueError, match="backend='recompute' takes no mask"):
        interactive_attention(q, k, v, (4, 4), **given, backend="recompute")


def parted_windows():
    """Two windows: one whole; the other shifted along both axes, of four parts, two of them without a whole cell."""
    row, column = torch.arange(16) // 4, torch.arange(16) % 4
    place = torch.stack([torch.zeros(16), (row >= 3) * 2 + (column >= 1)])
    return (place[:, :, None] == place[:, None]).unsqueeze(1)


def rotations(grid, cells, width):
    """Each pair of channels turned by its own angles a row and a column; landmarks in the middle of their cells."""

    def turned_at(rows, columns):
        rates = torch.linspace(0.1, 1.0, width // 2, dtype=torch.float64)
        angles = rows[:, None] * rates + columns[:, None] * rates.flip(0)

        def turn(x):
            pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
            return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)

        return turn

    def middles(length, count):
        return [(a + b - 1) / 2 for a, b in cell_spans(length, count)]

    places = [(r, c) for r in range(grid[0]) for c in range(grid[1])]
    cell_places = [(r, c) for r in middles(grid[0], cells[0]) for c in middles(grid[1], cells[1])]
    return tuple(turned_at(*torch.tensor(at, dtype=torch.float64).unbind(1)) for at in (places, cell_places))


ADDED = {
    "bias": lambda: dict(attn_bias=torch.randn(3, 16, 16, dtype=torch.float64)),
    "bias of images": lambda: dict(attn_bias=torch.randn(2, 1, 16, 16, dtype=torch.float64)),
    "parts": lambda: dict(attn_mask=parted_windows()),
    "rotations": lambda: dict(rotate=rotations((4, 4), (3, 2), 6)),
    "parts, bias": lambda: dict(
        attn_mask=parted_windows(), attn_bias=torch.randn(3, 16, 16, dtype=torch.float64)
    ),
    "padding, bias, rotations": lambda: dict(
        attn_mask=(torch.arange(16) < 11).view(1, 1, 1, 16),
        attn_bias=torch.randn(3, 16, 16, dtype=torch.float64),
        rotate=rotations((4, 4), (3, 2), 6),
    ),
}


@pytest.mark.parametrize("what", ADDED)
def test_what_is_added_reaches_landmarks(what):
    """Against the equations, in every gradient; and it matters."""
    torch.manual_seed(0)
    operands = [torch.randn(2, 3, 16, 6, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    operands += [torch.randn(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    added = ADDED[what]()
    if (bias := added.get("attn_bias")) is not None:
        operands.append(bias.requires_grad_())

    def run(function, q, k, v, mix_query, mix_key, *bias):
        given = added | ({"attn_bias": bias[0]} if bias else {})
        mixes = dict(mix_query=mix_query, mix_key=mix_key)
        return function(q, k, v, (4, 4), landmarks=(3, 2), **mixes, **given)

    asking = slice(0, 11) if what.startswith("padding") else slice(None)
    got, want = (
        run(function, *operands)[:, :, asking]
        for function in (interactive_attention, naive_interactive_attention)
    )
    assert_close(got, want, OUTPUT[torch.float64])
    upstream = torch.randn(got.shape, dtype=torch.float64)
    grads, wants = (torch.autograd.grad(x, operands, upstream) for x in (got, want))
    for grad, wanted in zip(grads, wants, strict=True):
        assert_close(grad, wanted, GRADIENT[torch.float64])
    plain = interactive_attention(
        *operands[:3], (4, 4), landmarks=(3, 2), mix_query=operands[3], mix_key=operands[4]
    )
    assert (plain[:, :, asking] - want).abs().max() > 1e-2
    mixes = dict(mix_query=operands[3], mix_key=operands[4])
    factors = attention_factors(*operands[:2], (4, 4), landmarks=(3, 2), **mixes, **added)
    assert_close((factors.effective_map() @ operands[2])[:, :, asking], want, OUTPUT[torch.float64])


def test_nothing_passes_between_parts():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 16, 6, dtype=torch.float64)
    mask = parted_windows()
    factors = attention_factors(q, k, (4, 4), landmarks=2, attn_mask=mask)
    assert factors.effective_map().masked_select(~mask).abs().max() == 0
    assert_close(factors.effective_map().sum(-1), torch.ones(2, 3, 16), OUTPUT[torch.float64])


def test_gradcheck_of_what_is_added():
    q, k, v = torch.randn(3, 2, 1, 4, 2, dtype=torch.float64).requires_grad_()
    bias = torch.randn(1, 4, 4, dtype=torch.float64, requires_grad=True)
    place = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1]])
    mask = (place[:, :, None] == place[:, None]).unsqueeze(1)
    turns = rotations((2, 2), (1, 2), 2)

    def added(*given):
        return interactive_attention(
            *given[:3], (2, 2), landmarks=(1, 2), attn_bias=given[3], attn_mask=mask, rotate=turns
        )

    assert torch.autograd.gradcheck(added, (q, k, v, bias))
    assert torch.autograd.gradgradcheck(added, (q, k, v, bias))


def test_what_cannot_be_added_is_named():
    q = torch.randn(1, 2, 16, 4)
    band = (torch.arange(16)[:, None] - torch.arange(16)).abs().lt(3).view(1, 1, 16, 16)
    with pytest.raises(
        ValueError, match=r"4 groups that see one another .* got one that parts them otherwise"
    ):
        interactive_attention(q, q, q, (4, 4), attn_mask=band)
    with pytest.raises(ValueError, match=r"attn_bias must be \(..., N, N\) = \(..., 16, 16\)"):
        interactive_attention(q, q, q, (4, 4), attn_bias=torch.zeros(2, 1, 16))
    with pytest.raises(ValueError, match="backend='recompute' takes no mask, bias or rotation"):
        interactive_attention(q, q, q, (4, 4), attn_bias=torch.zeros(16, 16), backend="recompute")

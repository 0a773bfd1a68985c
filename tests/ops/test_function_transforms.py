"""What PyTorch does with attention beside calling it: torch.func, second derivatives, forward mode, FX, autocast.

Every operator in every form, against its equations, which are plain PyTorch and follow all of it.
"""

from functools import partial

import pytest
import torch
from torch.autograd import forward_ad

from crosshead.ops import overlap
from crosshead.ops import talking as talk
from crosshead.ops.iha import interleaved_attention, naive_interleaved_attention
from crosshead.ops.interactive import interactive_attention, naive_interactive_attention
from crosshead.ops.overlap.windowed import packed_window_attention
from crosshead.ops.paths import Conditions, products_obstacles
from packed import of_packed
from tolerances import GRADIENT, OUTPUT, assert_close

overlapped_attention = of_packed(overlap.overlapped_attention)
naive_overlapped_attention = of_packed(overlap.naive_overlapped_attention)
talking_heads_attention = of_packed(talk.talking_heads_attention)
naive_talking_heads_attention = of_packed(talk.naive_talking_heads_attention)

B, N, H, D, O = 2, 6, 3, 5, 2  # noqa: E741
CLOSED = torch.zeros(N, N, dtype=torch.float64)
CLOSED[1, 2:] = CLOSED[4] = -torch.inf  # the query 4 sees no key


def window_naive(qkv, bias, gain):
    return naive_overlapped_attention(qkv, O, attn_mask=bias + CLOSED.to(bias.dtype), borrow_gain=gain)


def window(qkv, bias, gain):
    mask = CLOSED.to(bias.dtype).unsqueeze(0)
    return packed_window_attention(qkv, O, bias, mask=mask, borrow_gain=gain)


def masked(function, qkv, gain, mask=CLOSED):
    return function(qkv, O, attn_mask=mask.to(qkv.dtype), borrow_gain=gain)


def talking(function, *operands, **more):
    *operands, gain = operands
    return function(*operands, overlap=O, borrow_gain=gain, **more)


def interactive(function, q, k, v, m_q, m_k, **more):
    return function(q, k, v, (2, 3), landmarks=2, mix_query=m_q, mix_key=m_k, **more)


PACKED, GAIN, MIX = (B, N, 3, H, D), (H, 2 * O), [(H, H), (H,)]
TALKING = [PACKED, *MIX, *MIX, GAIN]
INTERACTIVE = [(B, H, N, D)] * 3 + [(H, H)] * 2
# Of each form: the operator, its equations, the shapes of what both are given.
FORMS = {
    "overlap": (
        lambda qkv: overlapped_attention(qkv, O),
        lambda qkv: naive_overlapped_attention(qkv, O),
        [PACKED],
    ),
    "overlap, causal": (
        lambda qkv: overlapped_attention(qkv, O, is_causal=True),
        lambda qkv: naive_overlapped_attention(qkv, O, is_causal=True),
        [PACKED],
    ),
    "overlap, mask and gain": (
        partial(masked, overlapped_attention),
        partial(masked, naive_overlapped_attention),
        [PACKED, GAIN],
    ),
    "windows": (window, window_naive, [PACKED, (H, N, N), GAIN]),
    **{
        f"talking, {backend}": (
            partial(talking, talking_heads_attention, backend=backend),
            partial(talking, naive_talking_heads_attention),
            TALKING,
        )
        for backend in ("chunked", "full_width", "math")
    },
    **{
        f"interactive, {backend}": (
            partial(interactive, interactive_attention, backend=backend),
            partial(interactive, naive_interactive_attention),
            INTERACTIVE,
        )
        for backend in ("stored", "recompute", "auto")
    },
    "interleaved": (
        partial(interleaved_attention, is_causal=True),
        partial(naive_interleaved_attention, is_causal=True),
        [(B, H, N, D)] * 3 + [(H, H, 2)] * 4,
    ),
}
every_form = pytest.mark.parametrize("form", FORMS)


def draw(shapes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def loss(function, *operands):
    return (function(*operands) ** 2).sum()


def assert_all_close(got, want, what, tolerance=GRADIENT[torch.float64]):
    """Tuples of tensors; what is exactly zero, the gradient of talking heads' first bias, up to rounding."""
    largest = max(w.abs().max() for w in want)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        if w.abs().max() > 1e-12 * largest:
            assert_close(g, w, tolerance, f"{what} {i}")
        else:
            assert g.abs().max() <= tolerance * largest, f"{what} {i}"


def second_derivatives(function, operands):
    """The gradients of a squared gradient: through a backward pass that is differentiated."""
    operands = [x.clone().requires_grad_() for x in operands]
    grads = torch.autograd.grad(
        loss(function, *operands), operands, create_graph=True, materialize_grads=True
    )
    return torch.autograd.grad(sum((g**2).sum() for g in grads), operands, materialize_grads=True)


@every_form
def test_the_backward_pass_is_differentiable(form):
    fast, naive, shapes = FORMS[form]
    operands = draw(shapes)
    got, want = (second_derivatives(function, operands) for function in (fast, naive))
    assert_all_close(got, want, "second derivative")


@every_form
def test_transforms_of_torch_func(form):
    fast, naive, shapes = FORMS[form]
    operands, tangents = draw(shapes), draw(shapes, seed=1)
    places = tuple(range(len(shapes)))
    outputs = [torch.func.jvp(function, tuple(operands), tuple(tangents)) for function in (fast, naive)]
    assert_all_close(*outputs, "jvp")
    several = [torch.stack([x, -x]) for x in operands]
    mapped = [torch.func.vmap(function)(*several) for function in (fast, naive)]
    assert_close(*mapped, OUTPUT[torch.float64], "vmap")
    grads = [torch.func.grad(partial(loss, function), argnums=places) for function in (fast, naive)]
    assert_all_close(*(grad(*operands) for grad in grads), "grad")
    assert_all_close(*(torch.func.vmap(grad)(*several) for grad in grads), "grad of each")


@every_form
def test_forward_mode_by_every_operand(form):
    fast, naive, shapes = FORMS[form]
    operands, tangents = draw(shapes), draw(shapes, seed=1)
    for place in range(len(shapes)):
        found = []
        for function in (fast, naive):
            with forward_ad.dual_level():
                given = list(operands)
                given[place] = forward_ad.make_dual(operands[place], tangents[place])
                tangent = forward_ad.unpack_dual(function(*given)).tangent
                found.append(torch.zeros(()) if tangent is None else tangent.clone())
        if found[1].abs().max() > 1e-12:  # talking heads' first bias changes nothing
            assert_close(*found, GRADIENT[torch.float64], f"tangent of operand {place}")


def test_second_derivatives_of_bfloat16_products():
    """The path of its own that bfloat16 takes on a CPU."""
    (qkv,) = draw([PACKED], dtype=torch.bfloat16)
    obstacles = products_obstacles(Conditions.of(qkv), 0.0)
    if obstacles == ["expected a processor that multiplies in bfloat16"]:
        pytest.skip("this processor does not multiply in bfloat16, so that the path is not taken")
    assert not obstacles
    got = second_derivatives(lambda x: overlapped_attention(x, O), [qkv])
    want = second_derivatives(lambda x: naive_overlapped_attention(x, O), [qkv.double()])
    assert_close(got[0], want[0], GRADIENT[torch.bfloat16])


@pytest.mark.parametrize("fast_mode", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_second_derivatives_under_dropout(fast_mode):
    """With its masks held still, the backward pass that is differentiated again must draw the same ones."""
    operands = [x.requires_grad_() for x in draw(TALKING[:-1])]

    def same_masks(*tensors):
        torch.manual_seed(3)
        return talking_heads_attention(*tensors, overlap=O, dropout_p=0.4)

    assert torch.autograd.gradgradcheck(same_masks, operands, fast_mode=fast_mode)


@every_form
def test_float64_stays_float64_under_autocast(form):
    fast, naive, shapes = FORMS[form]
    operands = draw(shapes)
    with torch.autocast("cpu", torch.bfloat16):
        got = fast(*operands)
    assert got.dtype == torch.float64
    assert_close(got, naive(*operands), OUTPUT[torch.float64])


@every_form
def test_float16_does_not_overflow(form):
    """Unscaled logits of 64 channels of 80 would pass float16's 65,504; scaled ones are an eighth."""
    fast, _, shapes = FORMS[form]
    operands = draw(
        [tuple(64 if size == D else size for size in shape) for shape in shapes], dtype=torch.float16
    )
    for i, shape in enumerate(shapes):
        if len(shape) > 3:
            operands[i] = torch.full_like(operands[i], 80.0)
        elif shape[0] == H:
            operands[i] = torch.full_like(operands[i], 1 / H if len(shape) > 1 else 0.0)
    out = fast(*operands)
    assert out.dtype == torch.float16 and torch.isfinite(out).all()


class Operators(torch.nn.Module):
    """All operators in one model, for the tracing of graphs."""

    def forward(self, q, k, v, weight, bias):
        outputs = [
            overlap.overlapped_attention(q, k, v, O),
            overlap.overlapped_attention(q, k, v, O, attn_bias=bias),
            talk.talking_heads_attention(q, k, v, weight, None, weight, None, overlap=O),
            interactive_attention(q, k, v, grid=(2, 3), mix_query=weight),
            overlap.overlapped_attention_weights(q, k, v, O),
            talk.talking_heads_weights(q, k, v, weight, None, weight, None),
        ]
        return [x.sum() for x in outputs]


def test_operators_are_nodes_of_fx_graphs():
    operands = draw([(B, H, N, D)] * 3 + [(H, H), (H, N, N)])
    graph = torch.fx.symbolic_trace(Operators())
    names = {node.name for node in graph.graph.nodes}
    assert {"overlapped_attention", "interactive_attention", "talking_heads_weights"} <= names
    for got, want in zip(graph(*operands), Operators()(*operands), strict=True):
        assert torch.equal(got, want)

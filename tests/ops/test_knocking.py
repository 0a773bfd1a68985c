"""Knocking heads: against the equations, folded into the projection, and what they reduce to."""

import pytest
import torch
import torch.nn.functional as F

from crosshead.ops.knocking import fold, gated_values, knock, naive_gated_values, naive_knock
from tolerances import GRADIENT, OUTPUT, assert_close

SHAPES = [(2, 7, 3, 5, 4), (1, 1, 3, 1, 6), (3, 5, 1, 2, 3), (0, 4, 2, 3, 2)]  # (B, N, n, h, d)


def draw(*sizes, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in sizes
    ]


def assert_same(fast, naive, inputs, dtype=torch.float64):
    out, want = fast(*inputs), naive(*inputs)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert_close(out, want, OUTPUT[dtype], "output")
    grads, wants = (torch.autograd.grad(x, inputs, upstream) for x in (out, want))
    for index, (g, w) in enumerate(zip(grads, wants, strict=True)):
        assert_close(g, w, GRADIENT[dtype], f"gradient {index}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fast_equals_naive(shape, dtype):
    kinds, width = shape[2], shape[4]
    assert_same(knock, naive_knock, draw(shape, (kinds, width, width), dtype=dtype), dtype)
    values = (shape[0], shape[3], shape[1], width)
    assert_same(gated_values, naive_gated_values, draw(values, *[(width, width)] * 3, dtype=dtype), dtype)


@pytest.mark.parametrize("with_bias", [False, True])
def test_folded_projection_knocks(with_bias):
    """The projection of x folded, against the projection of x and then the knocking; every gradient too."""
    x, weight, bias, matrices = draw((2, 7, 6), (3 * 5 * 4, 6), (3 * 5 * 4,), (3, 4, 4))

    def folded(x, weight, bias, matrices):
        return F.linear(x, *fold(weight, bias if with_bias else None, matrices)) + 0 * bias.sum()

    def knocked(x, weight, bias, matrices):
        heads = F.linear(x, weight, bias if with_bias else None).unflatten(-1, (3, 5, 4))
        return naive_knock(heads, matrices).flatten(2) + 0 * bias.sum()

    assert_same(folded, knocked, [x, weight, bias, matrices])


def test_identity_changes_nothing_to_the_bit():
    heads, weight, values = draw((2, 7, 3, 5, 4), (60, 6), (2, 5, 7, 4), dtype=torch.float32)
    same = torch.eye(4).expand(3, 4, 4)
    assert torch.equal(knock(heads, same), heads)
    assert torch.equal(fold(weight, None, same)[0], weight)
    assert torch.equal(gated_values(values, torch.eye(4), torch.zeros(4, 4), torch.eye(4)), values)


def test_gradcheck():
    assert torch.autograd.gradcheck(knock, draw((1, 3, 2, 2, 3), (2, 3, 3)))
    assert torch.autograd.gradgradcheck(gated_values, draw((1, 2, 3, 3), (3, 3), (3, 3), (3, 3)))


def test_torch_func():
    heads, matrices = (x.detach() for x in draw((2, 3, 2, 2, 3), (2, 3, 3)))
    mapped = torch.vmap(knock, in_dims=(0, None))(heads.unsqueeze(1), matrices)
    assert_close(mapped.squeeze(1), knock(heads, matrices), OUTPUT[torch.float64])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"packed as \(B, N, n, num_heads, head_dim\)"):
        knock(torch.zeros(2, 3, 4), torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"matrices must be \(n, head_dim, head_dim\) = \(3, 4, 4\)"):
        knock(torch.zeros(1, 2, 3, 2, 4), torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match=r"n = 3, head_dim = 4, got \(20, 6\)"):
        fold(torch.zeros(20, 6), None, torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"gate must be \(head_dim, head_dim\) = \(4, 4\), got \(4, 8\)"):
        gated_values(torch.zeros(1, 4), torch.eye(4), torch.zeros(4, 8), torch.eye(4))

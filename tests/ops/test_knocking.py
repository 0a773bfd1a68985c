"""Knocking heads: against the equations, folded into the projection, and what they reduce to."""

import pytest
import torch
import torch.nn.functional as F

from crosshead.ops.knocking import fold, gated_values, knock, naive_gated_values, naive_knock
from crosshead.ops.knocking.fast import packed_knock
from tolerances import GRADIENT, OUTPUT, assert_close

SHAPES = [(2, 5, 7, 4), (1, 1, 1, 6), (3, 2, 5, 3), (0, 3, 4, 2)]  # (B, h, N, d)


def draw(*sizes, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in sizes
    ]


def assert_same(fast, naive, inputs, dtype=torch.float64):
    out, want = (x if torch.is_tensor(x) else torch.stack(x) for x in (fast(*inputs), naive(*inputs)))
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert_close(out, want, OUTPUT[dtype], "output")
    grads, wants = (torch.autograd.grad(x, inputs, upstream) for x in (out, want))
    for index, (g, w) in enumerate(zip(grads, wants, strict=True)):
        assert_close(g, w, GRADIENT[dtype], f"gradient {index}")


def packed_knock_of_heads(q, k, v, matrices):
    """The form of one projection's (B, N, 3, h, d)."""
    heads = torch.stack([x.transpose(1, 2) for x in (q, k, v)], dim=2)
    return packed_knock(heads, matrices).permute(2, 0, 3, 1, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fast_equals_naive(shape, dtype):
    width = shape[3]
    inputs = draw(shape, shape, shape, (3, width, width), dtype=dtype)
    assert_same(knock, naive_knock, inputs, dtype)
    assert_same(packed_knock_of_heads, naive_knock, inputs, dtype)
    assert_same(gated_values, naive_gated_values, draw(shape, *[(width, width)] * 3, dtype=dtype), dtype)


@pytest.mark.parametrize("with_bias", [False, True])
def test_folded_projection_knocks(with_bias):
    """The projection of x folded, against the projection of x and then the knocking; every gradient too."""
    x, weight, bias, matrices = draw((2, 7, 6), (3 * 5 * 4, 6), (3 * 5 * 4,), (3, 4, 4))

    def folded(x, weight, bias, matrices):
        return F.linear(x, *fold(weight, bias if with_bias else None, matrices)) + 0 * bias.sum()

    def knocked(x, weight, bias, matrices):
        heads = F.linear(x, weight, bias if with_bias else None).unflatten(-1, (3, 5, 4))
        knocked = naive_knock(*heads.permute(2, 0, 3, 1, 4), matrices)
        return torch.stack(knocked).permute(1, 3, 0, 2, 4).flatten(2) + 0 * bias.sum()

    assert_same(folded, knocked, [x, weight, bias, matrices])


def test_identity_changes_nothing_to_the_bit():
    heads, weight, values = draw((2, 7, 3, 5, 4), (60, 6), (2, 5, 7, 4), dtype=torch.float32)
    same = torch.eye(4).expand(3, 4, 4)
    assert torch.equal(packed_knock(heads, same), heads)
    assert all(torch.equal(x, values) for x in knock(values, values, values, same))
    assert torch.equal(fold(weight, None, same)[0], weight)
    assert torch.equal(gated_values(values, torch.eye(4), torch.zeros(4, 4), torch.eye(4)), values)


def test_gradcheck():
    assert torch.autograd.gradcheck(knock, draw(*[(1, 2, 3, 3)] * 3, (3, 3, 3)))
    assert torch.autograd.gradgradcheck(gated_values, draw((1, 2, 3, 3), (3, 3), (3, 3), (3, 3)))


def test_torch_func():
    *heads, matrices = (x.detach() for x in draw(*[(2, 2, 3, 3)] * 3, (3, 3, 3)))
    mapped = torch.vmap(knock, in_dims=(0, 0, 0, None))(*(x.unsqueeze(1) for x in heads), matrices)
    for got, want in zip(mapped, knock(*heads, matrices), strict=True):
        assert_close(got.squeeze(1), want, OUTPUT[torch.float64])


def test_the_packed_form_serves_for_one_more_version():
    heads, matrices = draw((2, 7, 3, 5, 4), (3, 4, 4))
    with pytest.warns(FutureWarning, match=r"knock\(q, k, v, ...\)"):
        assert torch.equal(knock(heads, matrices), packed_knock(heads, matrices))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"packed as \(B, N, n, num_heads, head_dim\)"):
        packed_knock(torch.zeros(2, 3, 4), torch.zeros(3, 4, 4))
    heads = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"matrices must be \(3, head_dim, head_dim\) = \(3, 4, 4\)"):
        knock(heads, heads, heads, torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match=r"n = 3, head_dim = 4, got \(20, 6\)"):
        fold(torch.zeros(20, 6), None, torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"gate must be \(head_dim, head_dim\) = \(4, 4\), got \(4, 8\)"):
        gated_values(torch.zeros(1, 4), torch.eye(4), torch.zeros(4, 8), torch.eye(4))

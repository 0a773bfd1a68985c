"""Runs the fused kernels of talking heads and saves what came out beside what naive gives: ``THIS FILE DEVICE OUT``.

A process of its own, because Triton's interpreter must be chosen before the kernels are defined.
"""

import sys

import torch
from overlap_kernel_cases import drawn, second_derivatives
from test_overlap import output_and_gradients

from crosshead.ops import dropout_kernel
from crosshead.ops.talking import naive_talking_heads_attention, talking_heads_attention
from crosshead.ops.talking import triton_kernels as kernel
from crosshead.ops.talking import triton_operator as fused
from packed import of_packed

# (B, N, h, d, o): one token, one head, odd and prime sizes, more than a tile, as many heads as there may be.
SHAPES = [
    (2, 7, 3, 5, 2),
    (1, 1, 2, 8, 3),
    (2, 11, 1, 6, 4),
    (1, 37, 4, 16, 0),
    (1, 19, 12, 16, 6),
]
F32 = torch.float32
attend = of_packed(talking_heads_attention)
naive = of_packed(naive_talking_heads_attention)


def operands(shape, dtype=F32, device="cpu"):
    """qkv, and the mixing before and after the softmax with their biases."""
    batch, tokens, heads, width, _ = shape
    sizes = [(batch, tokens, 3, heads, width), (heads, heads), (heads,), (heads, heads), (heads,)]
    return [drawn(*size, seed=i).to(device, dtype) for i, size in enumerate(sizes)]


def both(shape, device, dtype=F32, learned=(), **more):
    """Output and gradients of the kernels, and of the equations in float64, with ``learned`` operands by name."""
    names = [name for name, _ in learned]
    given = [*operands(shape, dtype, device), *(t.to(device, dtype) for _, t in learned)]

    def called(function, kind, **form):
        def call(*values):
            mixing, rest = values[:5], dict(zip(names, values[5:], strict=True))
            fixed = {
                k: v.to(device, kind if v.is_floating_point() else v.dtype)
                if isinstance(v, torch.Tensor)
                else v
                for k, v in more.items()
            }
            return function(*mixing, overlap=shape[-1], **rest, **fixed, **form)

        return call

    got = output_and_gradients(called(attend, dtype, backend="triton"), *given)
    want = output_and_gradients(called(naive, torch.float64), *(x.double() for x in given))
    return got, want


def dropped(device):
    """Dropout, against equations that drop what the kernels say they drop; one draw for both passes."""
    (batch, tokens, heads, width, _), p = (2, 19, 3, 8, 0), 0.3
    seed = torch.tensor(1234567, device=device)
    mask = torch.empty(batch, heads, tokens, tokens, device=device)
    kernel.dropout_factors[(3, heads, batch)](seed, mask, heads, tokens, p, SIZE=128)

    def kernels(x, pre, post, bias):
        q, k, v = x.permute(2, 0, 3, 1, 4).unbind(0)
        return fused._attend(q, k, v, pre, post, bias, None, None, seed, width**-0.5, False, p)[0]

    def equations(x, pre, post, bias):
        q, k, v = x.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.einsum("gi,binm->bgnm", pre, q @ k.mT * width**-0.5).softmax(-1)
        weights = torch.einsum("gi,binm->bgnm", post, weights) + bias[:, None, None]
        return (weights * mask.double() @ v).transpose(1, 2)

    x, pre, _, post, bias = operands((batch, tokens, heads, width, 0), F32, device)
    given = (x, pre, post, bias)
    return (
        output_and_gradients(kernels, *given),
        output_and_gradients(equations, *(t.double() for t in given)),
        mask,
    )


def drawn_on_the_device(device):
    """Factors of dropout from a seed that stays where it is: the share, another draw, the same draw again."""
    seed = torch.tensor(99, device=device)
    first, other, again = (
        dropout_kernel.fill_factors(torch.empty(4, 3000, device=device), seed, number, 0.3)
        for number in (0, 1, 0)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    differing = ((first > 0) != (other > 0)).float().mean()
    assert abs(differing - 2 * 0.7 * 0.3) < 0.05
    return ((first > 0).float().mean(), [first.max()]), (torch.tensor(0.7), [torch.tensor(1 / 0.7)])


def run_all(device):
    results = {str(shape): both(shape, device) for shape in SHAPES}
    shape = (2, 19, 3, 8, 3)
    results |= {str(dtype): both(shape, device, dtype) for dtype in (torch.bfloat16, torch.float16)}
    closed = torch.ones(19, 19, dtype=torch.bool)
    closed[4], closed[:, 3] = False, False
    results["boolean mask"] = both(shape, device, attn_mask=closed)
    results["additive mask of each image"] = both(shape, device, attn_mask=drawn(2, 1, 19, 19))
    results["causal, scale"] = both((1, 37, 2, 8, 0), device, is_causal=True, scale=0.2)
    bias, gain = ("attn_bias", drawn(3, 19, 19)), ("borrow_gain", drawn(3, 6))
    results["bias, gain, mask"] = both(shape, device, learned=[bias, gain], attn_mask=closed)
    got, want, mask = dropped(device)
    results["dropout"] = got, want
    results["kept"] = ((mask > 0).float().mean(), [mask.max()]), (torch.tensor(0.7), [torch.tensor(1 / 0.7)])
    results["kept in chunks"] = drawn_on_the_device(device)
    given = operands((1, 5, 3, 8, 0), F32, device)
    found = [
        second_derivatives(lambda *x, f=f, m=m: f(*x, is_causal=True, **m), *given)
        for f, m in ((attend, dict(backend="triton")), (naive, {}))
    ]
    results["second derivatives"] = tuple((grads[0], list(grads)) for grads in found)
    compiled = torch.compile(lambda *x: attend(*x, backend="triton"), fullgraph=True, backend="aot_eager")
    results["captured"] = output_and_gradients(compiled, *given), output_and_gradients(naive, *given)
    none = operands((0, 9, 3, 8, 0), F32, device)
    results["no images"] = (
        output_and_gradients(lambda *x: attend(*x, backend="triton"), *none),
        output_and_gradients(naive, *none),
    )
    return results


if __name__ == "__main__":
    torch.save(
        {
            name: [(out.detach().cpu(), [g.cpu() for g in grads]) for out, grads in pair]
            for name, pair in run_all(sys.argv[1]).items()
        },
        sys.argv[2],
    )

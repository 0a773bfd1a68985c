"""Runs the fused kernels of overlapped heads and saves what came out beside what naive gives: ``THIS FILE DEVICE OUT``.

A process of its own, because Triton's interpreter must be chosen before the kernels are defined.
"""

import sys

import torch
from test_overlap import output_and_gradients

from crosshead.ops.overlap import fused, kernel, naive_overlapped_attention, overlapped_attention
from crosshead.ops.overlap.windowed import packed_window_attention
from packed import of_packed

# (B, N, h, d, o): one token, one head, odd and prime widths, more than a tile, windows wider than two heads.
SHAPES = [
    (2, 7, 3, 5, 2),
    (1, 1, 2, 8, 3),
    (2, 11, 1, 6, 4),
    (1, 70, 2, 16, 6),
    (2, 13, 4, 3, 3),
    (2, 9, 3, 8, 0),
    (1, 40, 2, 40, 16),
]
F32 = torch.float32
attend = of_packed(overlapped_attention)
naive = of_packed(naive_overlapped_attention)


def packed(shape, dtype=F32, device="cpu", seed=0):
    batch, tokens, heads, head_dim, _ = shape
    x = torch.randn(batch, tokens, 3, heads, head_dim, generator=torch.Generator().manual_seed(seed))
    return x.to(device, dtype)


def both(shape, device, dtype=F32, learned=(), **more):
    """Output and gradients of the kernels, and of the equations in float64, with ``learned`` operands by name."""
    x = packed(shape, dtype, device)
    names = [name for name, _ in learned]
    given = [x, *(t.to(device, dtype) for _, t in learned)]

    def call(function, **form):
        def called(qkv, *values):
            return function(qkv, shape[-1], **dict(zip(names, values, strict=True)), **form, **more)

        return called

    fixed = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in more.items()}
    more = fixed
    got = output_and_gradients(call(attend, backend="triton"), *given)
    more = {
        k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for k, v in fixed.items()
    }
    return got, output_and_gradients(call(naive), *(t.double() for t in given))


def drawn(*shape, seed=5):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def windows(device):
    """Three images of two windows: a bias that learns, a mask between windows that closes a row, gains."""
    shape = (6, 9, 3, 8, 3)
    mask = torch.zeros(2, 9, 9)
    mask[1, 3:, :5] = -torch.inf
    mask[1, 2] = -torch.inf
    operands = [packed(shape, F32, device), drawn(3, 9, 9).to(device), drawn(3, 6, seed=6).to(device)]

    def call(backend):
        def called(qkv, bias, gain):
            added = mask.to(device, bias.dtype)
            return packed_window_attention(qkv, 3, bias, mask=added, borrow_gain=gain, backend=backend)

        return called

    got = output_and_gradients(call("triton"), *operands)
    return got, output_and_gradients(call("math"), *(x.double() for x in operands))


def dropped(device):
    """Dropout, against equations that drop what the kernels say they drop; one draw for both passes."""
    shape, p = (2, 9, 3, 8, 3), 0.3
    seed = torch.tensor(1234567, device=device)
    mask = torch.empty(2, 3, 9, 9, device=device)
    kernel.dropout_factors[(1, 3, 2)](seed, mask, 3, 9, p, SIZE=128)

    def kernels(x):
        return fused._attend(x, 3, 8**-0.5, None, None, None, False, p, seed)[0].flatten(2)

    def equations(x):
        padded = torch.nn.functional.pad(x.flatten(3), (3, 3)).unfold(-1, 14, 8)  # (B, N, 3, h, 14)
        q, k, v = padded.permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT * 8**-0.5).softmax(-1) * mask.double()
        return (weights @ v).transpose(1, 2).flatten(2)

    x = packed(shape, F32, device)
    return output_and_gradients(kernels, x), output_and_gradients(equations, x.double()), mask


def second_derivatives(function, *operands):
    operands = [x.clone().requires_grad_() for x in operands]
    grads = torch.autograd.grad((function(*operands) ** 2).sum(), operands, create_graph=True)
    return torch.autograd.grad(sum((g**2).sum() for g in grads), operands)


def run_all(device):
    results = {str(shape): both(shape, device) for shape in SHAPES}
    shape, dtypes = (2, 19, 3, 16, 6), (torch.bfloat16, torch.float16)
    results |= {str(dtype): both(shape, device, dtype) for dtype in dtypes}
    closed = torch.ones(19, 19, dtype=torch.bool)
    closed[4], closed[:, 3] = False, False
    results["boolean mask"] = both(shape, device, attn_mask=closed)
    results["additive mask of each image and head"] = both(shape, device, attn_mask=drawn(2, 3, 19, 19))
    results["causal"] = both((1, 70, 2, 16, 6), device, is_causal=True)
    results["gains"] = both(shape, device, learned=[("borrow_gain", drawn(3, 12))])
    results["bias"] = both(shape, device, learned=[("attn_bias", drawn(3, 19, 19))])
    results["windows"] = windows(device)
    got, want, mask = dropped(device)
    results["dropout"] = got, want
    results["kept"] = ((mask > 0).float().mean(), [mask.max()]), (torch.tensor(0.7), [torch.tensor(1 / 0.7)])
    x, gain = packed(shape, F32, device), drawn(3, 12).to(device)
    found = [
        second_derivatives(lambda q, g, f=f, m=m: f(q, 6, borrow_gain=g, is_causal=True, **m), x, gain)
        for f, m in ((attend, dict(backend="triton")), (naive, {}))
    ]
    results["second derivatives"] = tuple((grads[0], list(grads)) for grads in found)
    compiled = torch.compile(lambda q: attend(q, 6, backend="triton"), fullgraph=True, backend="aot_eager")
    results["captured"] = output_and_gradients(compiled, x), output_and_gradients(lambda q: naive(q, 6), x)
    none = packed((0, 9, 3, 8, 3), F32, device)
    results["no images"] = (
        output_and_gradients(lambda q: attend(q, 3, backend="triton"), none),
        output_and_gradients(lambda q: naive(q, 3), none),
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

"""Runs the fused kernels on every case and saves what came out beside what naive gives: ``python THIS FILE DEVICE``.

A process of its own, because Triton's interpreter must be chosen before the kernels are defined.
"""

import sys

import torch
from test_interactive import SHAPES, call, operands, output_and_gradients

from crosshead.ops.interactive import interactive_attention, naive_interactive_attention

MORE_HEADS_THAN_A_GROUP = (1, 10, 8, (5, 8), (3, 2), 1)
WIDE_HEADS = (1, 3, 40, (9, 9), (7, 7), 2)  # several tiles of tokens, odd paddings of every axis
CASES = {f"float32-{shape}": (shape, torch.float32, 5) for shape in [*SHAPES, MORE_HEADS_THAN_A_GROUP]}
CASES |= {f"{dtype}-wide": (WIDE_HEADS, dtype, 5) for dtype in (torch.float32, torch.bfloat16, torch.float16)}
CASES["apart"] = (WIDE_HEADS, torch.float32, 3)


def one_matrix(function, **more):
    return lambda q, k, v, m: call(function, WIDE_HEADS, **more)(q, k, v, None, m)


def no_images(device: str):
    shape = (0, *SHAPES[0][1:])
    inputs = [t.to(device) for t in operands(shape, torch.float32)]
    return [
        output_and_gradients(call(function, shape, **more), inputs)
        for function, more in (
            (interactive_attention, dict(backend="triton")),
            (naive_interactive_attention, {}),
        )
    ]


def second_derivatives(function, inputs) -> tuple:
    inputs = [t.clone().requires_grad_() for t in inputs]
    grads = torch.autograd.grad((function(*inputs) ** 2).sum(), inputs, create_graph=True)
    return torch.autograd.grad(sum((g**2).sum() for g in grads), inputs)


def run_all(device: str) -> dict:
    results = {}
    for name, (shape, dtype, count) in CASES.items():
        inputs = [t.to(device) for t in operands(shape, dtype, packed=True)[:count]]
        got = output_and_gradients(call(interactive_attention, shape, backend="triton"), inputs)
        results[name] = (
            got,
            output_and_gradients(call(naive_interactive_attention, shape), [t.double() for t in inputs]),
        )
    q, k, v, _, m_k = (t.to(device) for t in operands(WIDE_HEADS, torch.float32))
    got = output_and_gradients(one_matrix(interactive_attention, backend="triton"), (q, k, v, m_k))
    results["one matrix"] = got, output_and_gradients(one_matrix(naive_interactive_attention), (q, k, v, m_k))
    results["no images"] = no_images(device)
    shape = SHAPES[0]
    inputs = [t.to(device) for t in operands(shape, torch.float32)]
    results["second derivatives"] = tuple(
        (
            t := torch.cat([g.flatten() for g in second_derivatives(call(function, shape, **more), inputs)]),
            (t,),
        )
        for function, more in (
            (interactive_attention, dict(backend="triton")),
            (naive_interactive_attention, {}),
        )
    )
    compiled = torch.compile(
        call(interactive_attention, shape, backend="triton"), fullgraph=True, backend="aot_eager"
    )
    results["captured"] = (
        output_and_gradients(compiled, inputs),
        output_and_gradients(call(naive_interactive_attention, shape), inputs),
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

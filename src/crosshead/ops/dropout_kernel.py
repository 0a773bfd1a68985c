# mypy: ignore-errors
"""Factors of dropout in Triton, from a seed that stays on the GPU."""

import torch
import triton
import triton.language as tl
from torch import Tensor

SIZE = 1024


@triton.jit
def factors(seed, number, out, count, p, SIZE: tl.constexpr):
    """0 or 1 / (1 - p) for each of ``count`` < 2³¹ weights, of the draw ``number`` of a seed."""
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    drawn = tl.rand(tl.load(seed) + number, place)
    kept = tl.where(drawn >= p, 1.0 / (1.0 - p), 0.0)
    tl.store(out + place, kept.to(out.dtype.element_ty), mask=place < count)


def fill_factors(out: Tensor, seed: Tensor, number: int, p: float) -> Tensor:
    """``out``, filled; a draw of more weights than a 32-bit number counts takes a seed for each part."""
    with torch.cuda.device(out.device) if out.is_cuda else torch.no_grad():
        for part, flat in enumerate(out.view(-1).split(1 << 30)):
            factors[(triton.cdiv(flat.numel(), SIZE),)](
                seed, number + (part << 32), flat, flat.numel(), p, SIZE=SIZE
            )
    return out

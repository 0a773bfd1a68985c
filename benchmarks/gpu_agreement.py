"""Every operator in every form and precision against its equations in float64: output, and every gradient."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crosshead.ops.dcmha import composed_attention, naive_composed_attention
from crosshead.ops.iha import interleaved_attention, naive_interleaved_attention
from crosshead.ops.interactive import interactive_attention, naive_interactive_attention
from crosshead.ops.knocking import knock, naive_knock
from crosshead.ops.overlap import naive_overlapped_attention as naive_overlapped
from crosshead.ops.overlap.fast import packed_attention as overlapped_attention
from crosshead.ops.overlap.windowed import packed_window_attention
from crosshead.ops.reattention import naive_reattention, reattention
from crosshead.ops.talking import naive_talking_heads_attention as naive_talking
from crosshead.ops.talking import talking_heads_attention as talking_of_heads
from crosshead.ops.talking.fast import packed_attention as talking_heads_attention
from packed import of_packed

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from tolerances import GRADIENT, OUTPUT

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Shapes = list[tuple[int, ...]]


@dataclass(frozen=True)
class Finding:
    """The largest errors of one form in one precision, relative to the largest entry, and whether they pass."""

    form: str
    dtype: str
    output: float | None
    gradient: float | None
    passed: bool
    said: str = ""

    def __str__(self) -> str:
        if self.output is None or self.gradient is None:
            return f"  {'FAILED':7} {self.form:44} {self.dtype:15} {self.said}"
        verdict = "passed" if self.passed else "FAILED"
        return f"  {verdict:7} {self.form:44} {self.dtype:15} output {self.output:.1e}, gradient {self.gradient:.1e}"


@dataclass(frozen=True)
class Form:
    """An operator, its equations, and the shapes of what both are given; square matrices start near the identity."""

    fast: Callable[..., Tensor]
    naive: Callable[..., Tensor]
    shapes: Shapes
    dtypes: tuple[torch.dtype, ...] = DTYPES
    on_gpu: bool = False  # no other device serves it


# What only the fused kernels need said.
TRITON: dict[str, Any] = dict(dtypes=(torch.bfloat16, torch.float16), on_gpu=True)


def packed(batch: int, tokens: int, heads: int, width: int) -> tuple[int, ...]:
    return batch, tokens, 3, heads, width


naive_overlapped_attention = of_packed(naive_overlapped)
naive_talking_heads_attention = of_packed(naive_talking)
talking_heads = of_packed(talking_of_heads)


def forms() -> dict[str, Form]:
    return overlapped() | windows() | talking() | interactive() | others()


def overlapped() -> dict[str, Form]:
    def causal(function: Callable[..., Tensor], qkv: Tensor, gain: Tensor) -> Tensor:
        return function(qkv, 6, borrow_gain=gain, is_causal=True)

    def masked(function: Callable[..., Tensor], qkv: Tensor, mask: Tensor) -> Tensor:
        closed = torch.arange(len(mask), device=mask.device) % 7 == 3
        return function(qkv, 6, attn_mask=mask.masked_fill(closed.unsqueeze(1), -torch.inf))

    found = {}
    for backend, more in (("auto", {}), ("triton", TRITON)):
        attend = partial(overlapped_attention, backend=backend)  # type: ignore[arg-type]
        for width, overlap in ((16, 0), (16, 6), (20, 2), (32, 8), (64, 5), (16, 16)):
            found[f"overlap, {backend}, d {width}, o {overlap}"] = Form(
                partial(attend, overlap=overlap),
                partial(naive_overlapped_attention, overlap=overlap),
                [packed(3, 197, 3, width)],
                **more,
            )
        found[f"overlap, {backend}, causal, gain"] = Form(
            partial(causal, attend),
            partial(causal, naive_overlapped_attention),
            [packed(3, 197, 3, 16), (3, 12)],
            **more,
        )
    found["overlap, auto, a mask that learns, closed rows"] = Form(
        partial(masked, overlapped_attention),
        partial(masked, naive_overlapped_attention),
        [packed(3, 197, 3, 16), (197, 197)],
    )
    return found


def windows() -> dict[str, Form]:
    def mask_of(bias: Tensor) -> Tensor:
        region = torch.arange(49, device=bias.device) % 3
        return (
            torch.where(region.unsqueeze(0) == region.unsqueeze(1), 0.0, -100.0).to(bias.dtype).unsqueeze(0)
        )

    def fast(qkv: Tensor, bias: Tensor, gain: Tensor, backend: str, overlap: int) -> Tensor:
        mask = mask_of(bias)
        return packed_window_attention(qkv, overlap, bias, mask=mask, borrow_gain=gain, backend=backend)

    def naive(qkv: Tensor, bias: Tensor, gain: Tensor, overlap: int) -> Tensor:
        return naive_overlapped_attention(qkv, overlap, attn_mask=bias + mask_of(bias), borrow_gain=gain)

    return {
        f"windows of 7 x 7, {backend}, o {overlap}": Form(
            partial(fast, backend=backend, overlap=overlap),
            partial(naive, overlap=overlap),
            [packed(8, 49, 3, 32), (3, 49, 49), (3, 2 * overlap)],
            **more,
        )
        for backend, more in (("auto", {}), ("triton", TRITON))
        for overlap in (1, 3, 8)
    }


def talking() -> dict[str, Form]:
    found = {}
    for backend, more in (("chunked", {}), ("full_width", {}), ("triton", TRITON), ("auto", {})):
        for overlap in (0, 5):

            def call(
                function: Callable[..., Tensor], *operands: Tensor, o: int = overlap, **more: str
            ) -> Tensor:
                qkv, pre, post, bias = operands
                return function(qkv, pre, None, post, bias, overlap=o, **more)

            found[f"talking, {backend}, o {overlap}"] = Form(
                partial(call, talking_heads_attention, backend=backend),
                partial(call, naive_talking_heads_attention),
                [packed(3, 196, 4, 48), (4, 4), (4, 4), (4,)],
                **more,
            )

    def masked(function: Callable[..., Tensor], *operands: Tensor, **more: str) -> Tensor:
        qkv, pre, post, bias, logits = operands
        near = torch.arange(197, device=qkv.device)
        mask = (near.unsqueeze(1) - near).abs() < 90
        return function(qkv, pre, None, post, bias, attn_mask=mask, attn_bias=logits, **more)

    for backend, more in (("triton", TRITON), ("auto", {})):
        found[f"talking, {backend}, bias and mask"] = Form(
            partial(masked, talking_heads, backend=backend),
            partial(masked, naive_talking_heads_attention),
            [packed(3, 197, 12, 16), (12, 12), (12, 12), (12,), (12, 197, 197)],
            **more,
        )
    return found


def interactive() -> dict[str, Form]:
    def call(function: Callable[..., Tensor], *operands: Tensor, **more: str) -> Tensor:
        q, k, v, *mixes = operands
        return function(q, k, v, (13, 15), mix_query=mixes[0], mix_key=mixes[1], num_prefix_tokens=2, **more)

    return {
        f"interactive, {backend}, {heads} heads": Form(
            partial(call, interactive_attention, backend=backend),
            partial(call, naive_interactive_attention),
            [(3, heads, 197, 32)] * 3 + [(heads, heads)] * 2,
            **(TRITON if backend == "triton" else {}),
        )
        for backend in ("stored", "recompute", "triton", "auto")
        for heads in (3, 8)
    }


def others() -> dict[str, Form]:
    def normed(function: Callable[..., tuple[Tensor, object]], *operands: Tensor) -> Tensor:
        q, k, v, mix, weight, bias = operands
        return function(q, k, v, mix, None, weight, bias)[0]

    def stacked(function: Callable[..., tuple[Tensor, ...]], *operands: Tensor) -> Tensor:
        return torch.stack(function(*operands))

    heads = [(3, 4, 97, 24)] * 3
    composed = [(3, 97, 40), (4 * 8, 40), (4, 8, 4, 4), (4 * 4, 40), (4, 4), (4, 4)]
    return {
        "dynamically composed": Form(composed_attention, naive_composed_attention, heads + composed),
        "re-attention": Form(
            partial(normed, reattention), partial(normed, naive_reattention), [*heads, (4, 4), (4,), (4,)]
        ),
        "interleaved": Form(interleaved_attention, naive_interleaved_attention, [*heads, *[(4, 4, 2)] * 4]),
        "knocking": Form(partial(stacked, knock), partial(stacked, naive_knock), [*heads, (3, 24, 24)]),
    }


def check_all(device: str) -> list[Finding]:
    """Every form in every precision that it serves; a failure does not end the rest."""
    found = []
    for name, form in forms().items():
        if form.on_gpu and device == "cpu":
            continue
        for dtype in form.dtypes:
            try:
                found.append(_check(name, form, dtype, device))
            except Exception as error:
                said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                found.append(Finding(name, str(dtype), None, None, False, said))
            print(found[-1], flush=True)
    return found


def _check(name: str, form: Form, dtype: torch.dtype, device: str) -> Finding:
    generator = torch.Generator().manual_seed(0)
    operands = []
    for shape in form.shapes:
        x = torch.randn(shape, generator=generator)
        small = len(shape) < 3
        if small and shape[0] == shape[-1]:
            x = torch.eye(shape[0]) + 0.3 * x / shape[0] if len(shape) == 2 else x
        elif small or (len(shape) == 4 and shape[0] == 4):
            x = 0.3 * x
        operands.append(x.to(device, dtype))
    got = _output_and_gradients(form.fast, operands)
    want = _output_and_gradients(form.naive, [x.double() for x in operands])
    errors = [_error(g, w) for g, w in zip(got, want, strict=True)]
    output, gradient = errors[0], max(errors[1:])
    passed = output <= OUTPUT[dtype] and gradient <= GRADIENT[dtype]
    return Finding(name, str(dtype), output, gradient, passed)


def _output_and_gradients(function: Callable[..., Tensor], operands: list[Tensor]) -> list[Tensor]:
    operands = [x.detach().requires_grad_() for x in operands]
    out = function(*operands)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(
        out.device, operands[0].dtype
    )
    return [out.detach(), *torch.autograd.grad(out, operands, upstream.to(out.dtype))]


def _error(got: Tensor, want: Tensor) -> float:
    """Relative to the largest entry; infinite where a number is none."""
    if not torch.isfinite(got).all():
        return float("inf")
    return ((got.double() - want).abs().max() / want.abs().max()).item()

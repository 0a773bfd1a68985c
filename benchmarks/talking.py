"""Talking heads against timm's way of computing them: time, and the peak of memory at many tokens.

    python benchmarks/talking.py                         the operator and the module
    python benchmarks/talking.py --vit                   the operator alone, with the heads of ViT-Tiny
    python benchmarks/talking.py --allocator default     the same with glibc's allocator as it is

The operator is what lies between qkv and the output projection in timm's TalkingHeadAttn.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.models.cait import TalkingHeadAttn
from torch import Tensor

from crosshead.layers import overlapped_talking_head_attention_layer
from crosshead.ops.talking import naive_talking_heads_attention
from crosshead.ops.talking.fast import packed_attention as talking_heads_attention
from crosshead.train.loop.devices import tune_allocator
from interleave import RESULTS, Timing, compare, conditions, report, require_close
from packed import of_packed

# (B, h, N, d); the first two are CaiT-XXS at 224 and at 448 pixels, the third has CaiT-M's heads,
# the last is CaiT-Micro on 32 pixels.
SHAPES = [(16, 4, 196, 48), (4, 4, 784, 48), (8, 16, 196, 48), (64, 4, 64, 24)]
# ViT-Tiny at 224 pixels, with MOHSA's heads and with timm's.
VIT = [(16, 12, 197, 16), (16, 3, 197, 64)]
OVERLAP = 5
LONG = (1, 4, 4096, 48)
Attend = Callable[..., Tensor]


def as_timm_computes_it(
    qkv: Tensor, pre: Tensor, pre_bias: Tensor, post: Tensor, post_bias: Tensor
) -> Tensor:
    """The middle of timm's TalkingHeadAttn.forward: linear layers over a permuted head axis."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    attn = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    attn = F.linear(attn.permute(0, 2, 3, 1), pre, pre_bias).permute(0, 3, 1, 2).softmax(dim=-1)
    attn = F.linear(attn.permute(0, 2, 3, 1), post, post_bias).permute(0, 3, 1, 2)
    return (attn @ v).transpose(1, 2).flatten(2)


COMPETITORS: dict[str, tuple[Attend, int]] = {
    "timm": (as_timm_computes_it, 0),
    "chunked (this library)": (partial(talking_heads_attention, backend="chunked"), 0),
    "full width (this library)": (partial(talking_heads_attention, backend="full_width"), 0),
    f"chunked, overlap {OVERLAP}": (
        partial(talking_heads_attention, overlap=OVERLAP, backend="chunked"),
        OVERLAP,
    ),
}


class Operator:
    """Operands, and one competitor on them."""

    def __init__(self, shape: tuple[int, ...], attend: Attend, overlap: int, dtype: torch.dtype) -> None:
        batch, heads, tokens, width = shape
        generator = torch.Generator().manual_seed(0)
        draw = partial(torch.randn, generator=generator)
        mixing = [torch.eye(heads) + 0.3 * draw(heads, heads), draw(heads)]
        mixing += [torch.eye(heads) + 0.3 * draw(heads, heads), draw(heads)]
        tensors = [draw(batch, tokens, 3, heads, width), *mixing]
        self.inputs = [t.to(dtype).requires_grad_() for t in tensors]
        self.upstream = draw(batch, tokens, heads * (width + 2 * overlap)).to(dtype)
        self.attend = attend

    @torch.no_grad()
    def inference(self) -> Tensor:
        return self.attend(*self.inputs)

    def both(self) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.attend(*self.inputs), self.inputs, self.upstream)


def check(shape: tuple[int, ...], name: str) -> None:
    """Output and gradients against float64, on two images; the bias before the softmax has no gradient."""
    attend, overlap = COMPETITORS[name]
    small = (min(2, shape[0]), *shape[1:])
    oracle = Operator(
        small, partial(of_packed(naive_talking_heads_attention), overlap=overlap), overlap, torch.float64
    )
    competitor = Operator(small, attend, overlap, torch.float32)
    require_close(competitor.inference(), oracle.inference(), 1e-5, f"{name} at {shape}")
    for index, (got, want) in enumerate(zip(competitor.both(), oracle.both(), strict=True)):
        if index != 2:
            require_close(got, want, 1e-4, f"{name}, gradient {index} at {shape}")


def operator_tables(shapes: list[tuple[int, ...]], rounds: int) -> dict[str, list[Timing]]:
    tables = {}
    for shape in shapes:
        operators = {}
        for name, (attend, overlap) in COMPETITORS.items():
            check(shape, name)
            operators[name] = Operator(shape, attend, overlap, torch.float32)
        size = "B {}, h {}, N {}, d {}, float32".format(*shape)
        tables[f"operator forward, {size}"] = compare({n: o.inference for n, o in operators.items()}, rounds)
        tables[f"operator forward + backward, {size}"] = compare(
            {n: o.both for n, o in operators.items()}, rounds
        )
    return tables


def module_tables(rounds: int) -> dict[str, list[Timing]]:
    """timm's whole module, projections included, with the same weights; and the overlapped one."""
    tables = {}
    for batch, heads, tokens, width in SHAPES:
        torch.manual_seed(0)
        theirs = TalkingHeadAttn(heads * width, heads)
        ours = overlapped_talking_head_attention_layer(heads * width, heads)
        ours.load_state_dict(theirs.state_dict())
        overlapped = overlapped_talking_head_attention_layer(heads * width, heads, overlap=OVERLAP)
        x = torch.randn(batch, tokens, heads * width, requires_grad=True)
        upstream = torch.randn_like(x)
        require_close(ours(x), theirs.double()(x.double()), 1e-5, "module")
        modules = {"timm": theirs.float(), "this library": ours, f"overlap {OVERLAP}": overlapped}
        size = f"B {batch}, h {heads}, N {tokens}, d {width}, float32"
        inference = {name: torch.no_grad()(partial(module, x)) for name, module in modules.items()}
        tables[f"module forward, {size}"] = compare(inference, rounds)
        both = {
            name: partial(
                lambda m, x, g: torch.autograd.grad(m(x), [x, *m.parameters()], g), module, x, upstream
            )
            for name, module in modules.items()
        }
        tables[f"module forward + backward, {size}"] = compare(both, rounds)
    return tables


def peaks() -> dict[str, float]:
    """Peak memory in MiB that forward and backward need beside their operands, each in a process of its own."""
    found = {}
    for name in COMPETITORS:
        command = [sys.executable, __file__, "--peak", name]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[f"peak MiB at N {LONG[2]}: {name}"] = float(output.split()[-1])
    return found


def peak(name: str) -> float:
    attend, overlap = COMPETITORS[name]
    warm = Operator((1, LONG[1], 64, LONG[3]), attend, overlap, torch.float32)
    warm.both()
    operator = Operator(LONG, attend, overlap, torch.float32)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    operator.both()
    return resident("VmHWM") - before


def resident(what: str) -> float:
    """This process' memory in MiB: VmRSS what it holds now, VmHWM the most that it held."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(what))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--allocator", choices=["tuned", "default"], default="tuned")
    parser.add_argument("--vit", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peak", choices=list(COMPETITORS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print(peak(args.peak))
        return
    allocator = tune_allocator() if args.allocator == "tuned" else "default"
    header: dict = conditions(allocator)
    if args.vit:
        report(RESULTS / f"talking_vit_cpu_{args.allocator}.json", header, operator_tables(VIT, args.rounds))
        return
    tables = operator_tables(SHAPES, args.rounds) | module_tables(args.rounds)
    check(LONG, "chunked (this library)")
    report(RESULTS / f"talking_cpu_{args.allocator}.json", header | peaks(), tables)


if __name__ == "__main__":
    main()

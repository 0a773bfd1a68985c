"""The interactive operator against its peers: time, how it scales, FLOPs, and memory.

    python benchmarks/interactive.py                   forward, and forward + backward, at 1,024 to 16,384 tokens
    python benchmarks/interactive.py --only memory     kept for the backward, and peaks, at 4,096 to 65,536 tokens
    python benchmarks/interactive.py --device cuda     the fused kernels against the compiled unfused path

All at 8 heads of 32 and 7 x 7 landmarks, one image. The peers: plain attention (PyTorch's fused one); agent attention's
formulation, whose agents are pooled from the queries and whose heads don't interact (arXiv 2312.08874); and iMHSA as
one would write it, with 2-d pooling and the heads mixed by a linear layer over a permuted axis.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from crosshead.ops.interactive import interactive_attention, naive_interactive_attention
from crosshead.train.loop.devices import tune_allocator
from interleave import RESULTS, Timing, compare, conditions, report, require_close

HEADS, WIDTH, LANDMARKS = 8, 32, 7
Attend = Callable[[Tensor, Tensor, Tensor, int, Tensor, Tensor], Tensor]


def interactive(
    mode: str, q: Tensor, k: Tensor, v: Tensor, side: int, mix_query: Tensor, mix_key: Tensor
) -> Tensor:
    return interactive_attention(
        q, k, v, (side, side), landmarks=LANDMARKS, mix_query=mix_query, mix_key=mix_key, backend=mode
    )


def pool_2d(x: Tensor, side: int) -> Tensor:
    """Adaptive average pooling, as agent attention's authors call it: (B, h, L, d)."""
    image = x.transpose(1, 2).flatten(2).unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return F.adaptive_avg_pool2d(image, LANDMARKS).flatten(2).unflatten(1, (HEADS, WIDTH)).transpose(2, 3)


def permute_and_linear(
    q: Tensor, k: Tensor, v: Tensor, side: int, mix_query: Tensor, mix_key: Tensor
) -> Tensor:
    scale = WIDTH**-0.5
    a_q = (q @ pool_2d(k, side).mT * scale).softmax(-1)
    a_k = (pool_2d(q, side) @ k.mT * scale).softmax(-1)
    a_q = F.linear(a_q.permute(0, 2, 3, 1), mix_query).permute(0, 3, 1, 2)
    a_k = F.linear(a_k.permute(0, 2, 3, 1), mix_key).permute(0, 3, 1, 2)
    return a_q @ (a_k @ v)


def agent(q: Tensor, k: Tensor, v: Tensor, side: int, mix_query: Tensor, mix_key: Tensor) -> Tensor:
    agents, scale = pool_2d(q, side), WIDTH**-0.5
    context = ((agents * scale) @ k.mT).softmax(-1) @ v
    return ((q * scale) @ agents.mT).softmax(-1) @ context


def plain(q: Tensor, k: Tensor, v: Tensor, side: int, mix_query: Tensor, mix_key: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


class Problem:
    """Operands of one size, as views of a packed projection, and an upstream gradient."""

    def __init__(
        self, side: int, device: str = "cpu", dtype: torch.dtype = torch.float32, batch: int = 1
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        packed = torch.randn(batch, side * side, 3, HEADS, WIDTH, generator=generator)
        mixes = torch.eye(HEADS) + 0.1 * torch.randn(2, HEADS, HEADS, generator=generator)
        self.upstream = torch.randn(batch, HEADS, side * side, WIDTH, generator=generator).to(device, dtype)
        self.side = side
        q, k, v = packed.to(device, dtype).permute(2, 0, 3, 1, 4).unbind(0)
        self.leaves = [t.requires_grad_() for t in (q, k, v, *mixes.to(device, dtype).unbind(0))]

    def _arguments(self) -> tuple:
        q, k, v, *mixes = self.leaves
        return q, k, v, self.side, *mixes

    @torch.no_grad()
    def forward(self, attend: Attend) -> Tensor:
        return attend(*self._arguments())

    def both(self, attend: Attend) -> tuple[Tensor | None, ...]:
        out = attend(*self._arguments())
        return torch.autograd.grad(out, self.leaves, self.upstream, allow_unused=True)

    def double(self) -> "Problem":
        other = Problem.__new__(Problem)
        other.side, other.upstream = self.side, self.upstream.double()
        other.leaves = [t.detach().double().requires_grad_() for t in self.leaves]
        return other


def check(attend: Attend, name: str, tolerance: tuple[float, float] = (1e-5, 1e-4), **where: object) -> None:
    """Output and every gradient against the equations in float64, at 28 x 28 tokens."""
    problem = Problem(28, **where)  # type: ignore[arg-type]
    naive = partial(_naive, landmarks=LANDMARKS)
    oracle = problem.double()
    require_close(problem.forward(attend), oracle.forward(naive), tolerance[0], name)
    for got, want in zip(problem.both(attend), oracle.both(naive), strict=True):
        require_close(got, want, tolerance[1], f"{name}, gradient")


def _naive(
    q: Tensor, k: Tensor, v: Tensor, side: int, mix_query: Tensor, mix_key: Tensor, landmarks: int
) -> Tensor:
    return naive_interactive_attention(
        q, k, v, (side, side), landmarks=landmarks, mix_query=mix_query, mix_key=mix_key
    )


def flops(side: int) -> int:
    """Of the forward at one image: pooling of q and k, four products with the landmarks, and two mixings."""
    tokens, landmarks, channels = side * side, LANDMARKS**2, HEADS * WIDTH
    pooling = 2 * LANDMARKS * tokens * channels + 2 * LANDMARKS**2 * side * channels
    products = 2 * tokens * landmarks * channels
    mixing = 2 * tokens * landmarks * HEADS**2
    return 2 * pooling + 4 * products + 2 * mixing


def check_flops() -> None:
    problem = Problem(64)
    with FlopCounterMode(display=False) as counter:
        problem.forward(partial(interactive, "stored"))
    if counter.get_total_flops() != flops(64):
        raise SystemExit(
            f"FLOPs: counted {counter.get_total_flops():,}, analytically {flops(64):,}; not reported"
        )


def time_tables(rounds: int) -> dict[str, list[Timing]]:
    competitors: dict[str, Attend] = {
        "permute and Linear": permute_and_linear,
        "interactive, stored": partial(interactive, "stored"),
        "interactive, recompute": partial(interactive, "recompute"),
        "interactive, auto": partial(interactive, "auto"),
        "agent formulation, no interaction": agent,
    }
    for name, attend in competitors.items():
        if attend is not agent:
            check(attend, name)
    tables = {}
    for side in (32, 56, 128):
        problem = Problem(side)
        size = f"{side * side} tokens, {flops(side) / 1e9:.2f} GFLOP forward"
        tables[f"forward, {size}"] = compare(
            {n: partial(problem.forward, a) for n, a in competitors.items()}, rounds
        )
        tables[f"forward + backward, {size}"] = compare(
            {n: partial(problem.both, a) for n, a in competitors.items()}, rounds
        )
    against = {"interactive, auto": competitors["interactive, auto"], "plain attention": plain}
    against = {n: partial(problem.forward, a) for n, a in against.items()}
    tables["forward, 16384 tokens, plain attention"] = compare(against, rounds=4, warmup=1)
    return tables


def growth(tables: dict[str, list[Timing]]) -> dict[str, float]:
    """Time at 16,384 tokens over time at 1,024, where 16 is linear."""
    found = {}
    for direction in ("forward", "forward + backward"):
        small, large = (
            next(
                times
                for title, times in tables.items()
                if title.startswith(f"{direction}, {tokens} tokens, ")
            )
            for tokens in (1024, 16384)
        )
        for s, t in zip(small, large, strict=True):
            found[f"{direction}, {s.name}"] = round(t.median_ms / s.median_ms, 2)
    return found


def kept_bytes(problem: Problem, attend: Attend) -> int:
    """Bytes kept for the backward beside q, k, v and the mixing matrices, each storage once."""
    given = {leaf.untyped_storage().data_ptr() for leaf in problem.leaves}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = attend(*problem._arguments())
    # The output is kept by whatever comes after, in every form alike.
    kept[out.untyped_storage().data_ptr()] = out.untyped_storage().nbytes()
    return sum(kept.values())


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that PyTorch's allocator held at once, beyond those at the start."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = [
            e["args"] for e in json.loads(path.read_text())["traceEvents"] if e.get("name") == "[memory]"
        ]
    return max(e["Total Allocated"] for e in events) - (events[0]["Total Allocated"] - events[0]["Bytes"])


def memory_figures() -> dict[str, dict[str, float]]:
    forms: dict[str, Attend] = {
        "permute and Linear": permute_and_linear,
        "stored": partial(interactive, "stored"),
        "recompute": partial(interactive, "recompute"),
        "auto": partial(interactive, "auto"),
    }
    figures: dict[str, dict[str, float]] = {name: {} for name in forms}
    for side in (64, 128, 256):
        problem, tokens = Problem(side), side * side
        for name, attend in forms.items():
            figures[name][f"kept, bytes a token at {tokens}"] = round(kept_bytes(problem, attend) / tokens)
            peak = peak_bytes(partial(problem.both, attend))
            figures[name][f"peak forward + backward, bytes a token at {tokens}"] = round(peak / tokens)
            peak = peak_bytes(partial(problem.forward, attend))
            figures[name][f"peak forward, bytes a token at {tokens}"] = round(peak / tokens)
    return figures


def report_memory(header: dict) -> None:
    """Prints a row a form and writes them as JSON beside the conditions."""
    figures = memory_figures()
    for name, row in figures.items():
        print(name)
        for what, count in row.items():
            print(f"  {what:48s} {count:6.0f}")
    path = RESULTS / "interactive_cpu_memory.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"conditions": header, "memory": figures}, indent=1) + "\n")


def cuda_tables(rounds: int) -> dict[str, list[Timing]]:
    """bfloat16 on a GPU: fused, unfused and compiled, and flash attention."""
    where = dict(device="cuda", dtype=torch.bfloat16)
    unfused = partial(interactive, "stored")
    competitors: dict[str, Attend] = {
        "unfused, compiled": torch.compile(unfused, fullgraph=True),
        "unfused": unfused,
        "fused": partial(interactive, "triton"),
        "flash attention": plain,
    }
    for name, attend in competitors.items():
        if attend is not plain:
            check(attend, name, (2e-2, 4e-2), **where)
    tables = {}
    for side in (56, 128):
        problem = Problem(side, batch=32 if side == 56 else 4, **where)  # type: ignore[arg-type]
        for direction in ("forward", "both"):
            runs = {n: partial(getattr(problem, direction), a) for n, a in competitors.items()}
            title = f"{direction}, {len(problem.upstream)} x {side * side} tokens, bfloat16"
            tables[title] = compare(runs, rounds, 10, torch.cuda.synchronize)
            for name, run in runs.items():
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                run()
                print(f"{title}, {name}: peak {(torch.cuda.max_memory_allocated() - before) / 2**20:.1f} MiB")
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--allocator", choices=["tuned", "default"], default="tuned")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", choices=["memory"])
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    header: dict = conditions(tune_allocator() if args.allocator == "tuned" else "default", args.device)
    check_flops()
    if args.only == "memory":
        report_memory(header)
        return
    tables: dict[str, list[Timing]] = {}
    if args.device == "cuda":
        tables |= cuda_tables(args.rounds)
    else:
        tables |= time_tables(args.rounds)
        header["time at 16384 over time at 1024 tokens"] = growth(tables)
    report(RESULTS / f"interactive_{args.device}_{args.allocator}.json", header, tables)


if __name__ == "__main__":
    main()

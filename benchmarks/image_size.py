"""Time, FLOPs and peak memory of one attention layer against image size: plain, agent and interactive attention.

    python benchmarks/image_size.py            a table, benchmarks/results/image_size_cpu.json, and a picture beside it

A layer of 8 heads of 32 with its projections, on the tokens of a stage of stride 8, one image. The peers are timm's
``Attention``, and ``AgentSelfAttention`` of the package agent-attention-pytorch with 49 agents, no gate and no talking
heads; interactive attention has 7 x 7 landmarks.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial

import torch
from agent_attention_pytorch import AgentSelfAttention
from timm.layers import Attention
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from crosshead.layers import interactive_attention_layer
from crosshead.ops.interactive import naive_interactive_attention
from crosshead.train.loop.devices import tune_allocator
from interactive import flops as operator_flops
from interactive import peak_bytes
from interleave import RESULTS, compare, conditions, require_close

STRIDE, HEADS, WIDTH, LANDMARKS = 8, 8, 32, 7
DIM = HEADS * WIDTH
SIZES = (224, 384, 512, 768, 1024)
NAMES = ("plain attention", "agent attention", "interactive attention")


def layers() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    agent = AgentSelfAttention(
        DIM, num_agent_tokens=LANDMARKS**2, dim_head=WIDTH, heads=HEADS, talking_heads=False, gate=False
    )
    plain, interactive = Attention(DIM, HEADS), interactive_attention_layer(DIM, HEADS, landmarks=LANDMARKS)
    return dict(zip(NAMES, (plain, agent, interactive), strict=True))


def analytic_flops(name: str, side: int) -> int:
    """Of the forward: projections, then what lies between them."""
    tokens = side * side
    projections = 2 * tokens * DIM * 4 * DIM
    between = {
        "plain attention": 4 * tokens**2 * DIM,
        "agent attention": 8 * tokens * LANDMARKS**2 * DIM,
        "interactive attention": operator_flops(side),
    }
    return projections + between[name]


def check(found: dict[str, nn.Module]) -> None:
    """Interactive attention against the equations in float64, and every FLOP formula against PyTorch's counter."""
    side = 28
    x = torch.randn(1, side * side, DIM, generator=torch.Generator().manual_seed(0))
    layer = found["interactive attention"]
    with torch.no_grad():
        qkv = layer.qkv(x).unflatten(-1, (3, HEADS, WIDTH)).permute(2, 0, 3, 1, 4).double()  # type: ignore[operator]
        mixes = dict(mix_query=layer.mix_query.double(), mix_key=layer.mix_key.double())  # type: ignore[operator, union-attr]
        heads = naive_interactive_attention(*qkv.unbind(0), (side, side), **mixes)
        want = nn.functional.linear(
            heads.transpose(1, 2).flatten(2),
            layer.proj.weight.double(),  # type: ignore[operator, union-attr]
            layer.proj.bias.double(),  # type: ignore[operator, union-attr]
        )
        require_close(layer(x), want, 1e-5, "interactive attention")
        for name, module in found.items():
            with FlopCounterMode(display=False) as counter:
                module(x)
            counted, wanted = counter.get_total_flops(), analytic_flops(name, side)
            if counted != wanted:
                raise SystemExit(f"{name}: {counted:,} FLOPs counted, {wanted:,} analytically; not reported")


def both(module: nn.Module, x: Tensor, upstream: Tensor) -> None:
    torch.autograd.grad(module(x), [x, *module.parameters()], upstream, allow_unused=True)


@torch.no_grad()
def forward(module: nn.Module, x: Tensor) -> None:
    module(x)


def measure(size: int, found: dict[str, nn.Module], rounds: int) -> dict[str, dict[str, float]]:
    """Of each layer at one image size: medians and spreads in ms, GFLOP, MiB."""
    side = size // STRIDE
    x = torch.randn(1, side * side, DIM, generator=torch.Generator().manual_seed(0)).requires_grad_()
    upstream = torch.ones(1, side * side, DIM)
    rows: dict[str, dict[str, float]] = {
        name: {"tokens": side * side, "GFLOP": round(analytic_flops(name, side) / 1e9, 2)} for name in found
    }
    runs: dict[str, dict[str, Callable[[], None]]] = {
        "forward": {name: partial(forward, module, x) for name, module in found.items()},
        "forward + backward": {name: partial(both, module, x, upstream) for name, module in found.items()},
    }
    for direction, competitors in runs.items():
        for timing in compare(competitors, rounds, warmup=1):
            rows[timing.name][f"{direction}, ms"] = round(timing.median_ms, 2)
            rows[timing.name][f"{direction}, spread"] = [round(timing.low_ms, 2), round(timing.high_ms, 2)]  # type: ignore[assignment]
        for name, run in competitors.items():
            rows[name][f"{direction}, peak MiB"] = round(peak_bytes(run) / 2**20, 1)
    return rows


def show(table: dict[int, dict[str, dict[str, float]]]) -> None:
    columns = (
        "forward, ms",
        "forward + backward, ms",
        "GFLOP",
        "forward, peak MiB",
        "forward + backward, peak MiB",
    )
    print("| image | tokens | attention | " + " | ".join(columns) + " |")
    print("| --- | --- | --- |" + " --- |" * len(columns))
    for size, rows in table.items():
        for name, row in rows.items():
            print(
                f"| {size} | {row['tokens']} | {name} | " + " | ".join(f"{row[c]:g}" for c in columns) + " |"
            )


def draw(table: dict[int, dict[str, dict[str, float]]]) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    panels = {
        "forward + backward, ms": "time, forward + backward (ms)",
        "GFLOP": "forward (GFLOP)",
        "forward + backward, peak MiB": "peak memory, forward + backward (MiB)",
    }
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, (column, title) in zip(axes, panels.items(), strict=True):
        for name in NAMES:
            axis.plot(list(table), [rows[name][column] for rows in table.values()], marker="o", label=name)
        axis.set(title=title, xlabel="image side (pixels)", xscale="log", yscale="log")
        axis.set_xticks(list(table), [str(size) for size in table])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(RESULTS / "image_size_cpu.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    header = conditions(tune_allocator())
    found = layers()
    check(found)
    table = {size: measure(size, found, args.rounds if size < 1024 else 3) for size in SIZES}
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    show(table)
    RESULTS.mkdir(exist_ok=True)
    content = json.dumps({"conditions": header, "table": table}, indent=1)
    (RESULTS / "image_size_cpu.json").write_text(content + "\n")
    draw(table)


if __name__ == "__main__":
    main()

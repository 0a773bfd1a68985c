"""A training step of the paper's five models against timm's plain model of the same shape.

    python benchmarks/models.py                         float32
    python benchmarks/models.py --bfloat16              under autocast
    python benchmarks/models.py --only swin             some of them, by name

Both sides have the same widths and heads; the overlapped side follows the paper's index schedule, so that its last
blocks overlap the most.
"""

import argparse
from functools import partial

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import crosshead.models  # noqa: F401 - registers the models
from crosshead.train.loop.devices import tune_allocator
from interleave import RESULTS, Timing, compare, conditions, report, require_close

MODELS = [
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "cait_xxs12_224",
    "cait_xxs24_224",
    "swin_tiny_patch4_window7_224",
]


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, bfloat16: bool) -> None:
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = F.cross_entropy(model(images), torch.zeros(len(images), dtype=torch.long))
    loss.backward()
    optimizer.step()


@torch.no_grad()
def check(model: nn.Module, images: Tensor) -> None:
    """The model in float32 against itself in float64."""
    model.eval()
    got = model(images)
    want = model.double()(images.double())
    model.float().train()
    require_close(got, want, 1e-4, type(model).__name__)


def table(name: str, images: Tensor, bfloat16: bool, rounds: int) -> list[Timing]:
    steps = {}
    for family in ("plain", "mohsa"):
        torch.manual_seed(0)
        model = timm.create_model(f"{family}_{name}", num_classes=100).train()
        check(model, images[:2])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        label = f"{family}_{name} ({millions:.1f} M)"
        steps[label] = partial(training_step, model, optimizer, images, bfloat16)
    return compare(steps, rounds, warmup=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--allocator", choices=["tuned", "default"], default="tuned")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--only", default="", help="models whose name holds this")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    allocator = tune_allocator() if args.allocator == "tuned" else "default"
    images = torch.randn(args.batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    precision = "bfloat16" if args.bfloat16 else "float32"
    tables = {
        f"training step, batch {args.batch}, {precision}, {name}": table(
            name, images, args.bfloat16, args.rounds
        )
        for name in MODELS
        if args.only in name
    }
    suffix = f"_{args.only}" if args.only else ""
    report(RESULTS / f"models_cpu_{args.allocator}_{precision}{suffix}.json", conditions(allocator), tables)


if __name__ == "__main__":
    main()

"""A training step of ViTs with each interaction between their heads against the same model with plain attention.

    python benchmarks/interactions.py                          every kind in ViT-Micro and ViT-Tiny
    python benchmarks/interactions.py --only knocking          plain attention and the kinds whose name holds this
    python benchmarks/interactions.py --models vit_micro_patch2_32 --rounds 15

All start from the same weights. Before anything is timed, each model is compared with itself in float64, in training
mode with every gradient, and with the plain model where the interaction preserves it. Beside the times stand the
parameters, the multiplications and additions of a forward pass as PyTorch counts them, and the bytes that the forward
pass keeps for the backward pass.
"""

import argparse
import copy
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from crosshead import swap_attention
from crosshead.train.loop.devices import tune_allocator
from interleave import RESULTS, Timing, compare, conditions, report, require_close

MODELS = {"vit_micro_patch2_32": (32, 3, 32), "vit_tiny_patch16_224": (8, 3, 224)}  # batch, channels, side

# Name, kind, how it starts, options.
KINDS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("knocking", "knocking", "preserve", {}),
    ("knocking, gated values", "knocking", "preserve", {"form": "gated"}),
    ("overlap, index", "overlap", "preserve", {"overlap": "index"}),
    ("talking", "talking", "preserve", {}),
    ("reattention", "reattention", "paper", {}),
    ("dcmha", "dcmha", "preserve", {}),
    ("iha, 1 pseudo-head", "iha", "preserve", {"pseudo_heads": 1}),
    ("iha, 2 pseudo-heads", "iha", "preserve", {"pseudo_heads": 2}),
    ("imhsa, 7 x 7 landmarks", "imhsa", "paper", {"landmarks": 7}),
]


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(images), torch.zeros(len(images), dtype=torch.long)).backward()
    optimizer.step()


def gradients(model: nn.Module, images: Tensor) -> list[Tensor]:
    logits = model(images)
    parameters = list(model.parameters())
    loss = F.cross_entropy(logits, torch.arange(len(images)))
    return [logits, *torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)]


def check(name: str, model: nn.Module, plain: nn.Module, images: Tensor, preserves: bool) -> None:
    if preserves:
        with torch.no_grad():
            require_close(model(images), plain(images), 1e-5, f"{name} against plain attention")
    exact = gradients(copy.deepcopy(model).double(), images.double())
    largest = max(want.abs().max() for want in exact[1:])
    for index, (got, want) in enumerate(zip(gradients(model, images), exact, strict=True)):
        if index == 0 or want.abs().max() > 1e-4 * largest:  # what is smaller is rounding, in float64 too
            require_close(got, want, 1e-3, f"{name}, output or gradient {index}")


def kept_mib(model: nn.Module, images: Tensor) -> float:
    """What the forward pass keeps for the backward pass, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        out = model(images)
        total = sum(found.values()) / 2**20
    del out
    return total


def forward_gflop(model: nn.Module, images: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        model(images[:1])
    return counter.get_total_flops() / 1e9


def table(
    name: str, batch: int, channels: int, side: int, only: str, rounds: int
) -> tuple[list[Timing], dict]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, channels, side, side, generator=generator)
    torch.manual_seed(0)
    plain = timm.create_model(f"plain_{name}", num_classes=10).train()
    steps, costs = {}, {}
    chosen = [("plain attention", "", "", {}), *(k for k in KINDS if only in k[0])]
    for label, kind, init, options in chosen:
        model = copy.deepcopy(plain)
        if kind:
            swap_attention(model, kind, init=init, **options)
        check(label, model, plain, images[:2], init == "preserve")
        costs[label] = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "forward_gflop_an_image": round(forward_gflop(model, images), 4),
            "kept_for_backward_mib": round(kept_mib(model, images), 1),
        }
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        steps[label] = partial(training_step, model, optimizer, images)
    return compare(steps, rounds, warmup=2), costs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--allocator", choices=["tuned", "default"], default="tuned")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--only", default="", help="plain attention and the kinds whose name holds this")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    allocator = tune_allocator() if args.allocator == "tuned" else "default"
    header: dict = conditions(allocator)
    tables = {}
    for name in args.models:
        batch, channels, side = MODELS[name]
        title = f"training step, {name}, batch {batch}, float32"
        tables[title], header[f"costs, {name}, batch {batch}"] = table(
            name, batch, channels, side, args.only, args.rounds
        )
    suffix = f"_{args.only}" if args.only else ""
    report(RESULTS / f"interactions_cpu_{args.allocator}{suffix}.json", header, tables)


if __name__ == "__main__":
    main()

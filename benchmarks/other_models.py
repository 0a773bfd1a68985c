"""Models of timm, transformers and torchvision with heads swapped at overlap 0, against their own attention.

python benchmarks/other_models.py [--rounds 9] [--batch 1] [--only NAME] [--out FILE]

At overlap 0 nothing is borrowed, so what a swap itself costs is all that can differ: 1.02 of the own time is the bar.
Random weights, 224 x 224 pixels, float32; forward in evaluation, and forward with backward in training
without dropout. Within six minutes on one core; what is measured is kept after each model. Nothing is downloaded.
"""

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
import transformers
from torch import nn

from crosshead import swap_attention
from interleave import RESULTS, Timing, compare, conditions, report, require_close


def dinov2_of_transformers() -> nn.Module:
    """DINOv2 small, as ``vit_small_patch14_dinov2``."""
    config = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=224, patch_size=14
    )
    return transformers.Dinov2Model(config)


def vit_of_torchvision() -> nn.Module:
    """ViT-B/16 without its head, whose weights start at 0: its outputs would tell nothing."""
    model: Any = torchvision.models.vit_b_16()
    model.heads = nn.Identity()
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "timm vit_small_patch14_dinov2": partial(timm.create_model, "vit_small_patch14_dinov2", img_size=224),
    "transformers Dinov2, small": dinov2_of_transformers,
    "torchvision vit_b_16": vit_of_torchvision,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--only", default="", help="a part of the names of the models to measure")
    parser.add_argument("--out", type=Path, default=RESULTS / "other_models_cpu.json")
    given = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randn(given.batch, 3, 224, 224)
    header = conditions("default") | {
        "transformers": transformers.__version__,
        "torchvision": torchvision.__version__,
        "batch": given.batch,
        "rounds": given.rounds,
    }
    tables: dict[str, list[Timing]] = {}
    for name, build in MODELS.items():
        if given.only in name:
            tables |= compared(name, build(), images, given.rounds)
            report(given.out, header, tables)


def compared(name: str, own: nn.Module, images: torch.Tensor, rounds: int) -> dict[str, list[Timing]]:
    swapped = copy.deepcopy(own)
    swap_attention(swapped, overlap=0)
    with torch.no_grad():
        require_close(output(swapped.eval()(images)), output(own.eval()(images)), 1e-5, name)

    def forward(model: nn.Module) -> None:
        with torch.no_grad():
            model.eval()(images)

    def step(model: nn.Module) -> None:
        model.zero_grad(set_to_none=True)
        output(model.train()(images)).square().mean().backward()

    return {
        f"{name}, {what}": compare({"own": partial(run, own), "swapped": partial(run, swapped)}, rounds, 2)
        for what, run in (("forward", forward), ("forward + backward", step))
    }


def output(found: Any) -> torch.Tensor:
    tokens: torch.Tensor = found if isinstance(found, torch.Tensor) else found.last_hidden_state
    return tokens


if __name__ == "__main__":
    main()

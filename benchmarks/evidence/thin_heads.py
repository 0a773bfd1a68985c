"""Thin heads on real pictures: is a lead of overlapped heads at four channels real, and more than a faster start?

Fashion-MNIST in 7 x 7 patches of 4 pixels, a ViT of width 32 and three blocks. Linear layers start from Xavier's
uniform distribution and positions from N(0, .3): timm's 0.02 is far too small at this width. All tensors are drawn by
name, so that what two kinds share begins alike, and a seed shows both the same pictures in the same order.
"""

import functools
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.models import VisionTransformer
from torch import Tensor, nn

from crosshead import swap_attention
from crosshead.data.datasets.registry import open_splits
from crosshead.data.random import permutation
from crosshead.recipe.compose import load_recipe
from crosshead.train.loop.model import build_paired, count_parameters

from .ledger import Job, Part

WIDTH, DEPTH, HIDDEN, BATCH, STEPS, LONG = 32, 3, 64, 16, 1800, 5400
LR, WARM_UP, WEIGHT_DECAY = 3e-3, 200, 0.05
KINDS = ("plain", "plain (equal parameters)", "overlap", "talking")
HEADS = 8  # of four channels: what the question is about
SEEDS = range(2100, 2108)  # looked at by nobody before
FEW, REST = (
    SEEDS[:4],
    SEEDS[4:],
)  # longer runs and other numbers of heads: four seeds of all before more of any
# Of plain heads, in the time of overlapped ones: timed in turn, before any of these runs (ratio 1.26).
TIME_STEPS = 2270
TIME_STEPS_OF_16 = 2060  # the same with sixteen heads (ratio 1.14), timed before any run with as many


def build(kind: str, num_heads: int, seed: int) -> nn.Module:
    return build_paired(lambda: started(kind, num_heads), seed)


def started(kind: str, num_heads: int) -> nn.Module:
    hidden = HIDDEN
    if kind == "plain (equal parameters)":
        more = 2 * (WIDTH // num_heads // 2) * num_heads * WIDTH * DEPTH
        hidden += round(more / (DEPTH * (2 * WIDTH + 1)))
    model = plain_vit(num_heads, hidden)
    if kind == "overlap":
        swap_attention(model, "overlap", overlap=f"constant:{WIDTH // num_heads // 2}", init="paper")
    elif kind == "talking":
        swap_attention(model, "talking", init="paper")
    start(model)
    return model


def plain_vit(num_heads: int, hidden: int = HIDDEN, patch: int = 4) -> VisionTransformer:
    """Not started; ``hidden`` is the MLP's width, ``patch`` in pixels."""
    return VisionTransformer(
        img_size=28, patch_size=patch, in_chans=1, num_classes=10, embed_dim=WIDTH, depth=DEPTH, num_heads=num_heads,
        mlp_ratio=(hidden + 0.5) / WIDTH, weight_init="skip",
    )  # fmt: skip


def start(model: nn.Module) -> None:
    """Linear layers from Xavier's uniform distribution, positions and class token, where there are any, N(0, .3)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name in ("pos_embed", "cls_token"):
        if (embedding := getattr(model, name, None)) is not None:
            nn.init.normal_(embedding, std=0.3)


@functools.cache
def pictures() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training pictures (54,000, 1, 28, 28) and classes, and the 10,000 of the test, normalised."""
    splits = open_splits(load_recipe("fashion_mnist", []))
    mean, std = splits.info.mean[0], splits.info.std[0]
    found = []
    for images in (splits.train, splits.test):
        found += [(images.pixels / 255 - mean) / std, torch.tensor(images.targets)]
    return tuple(found)


def train(model: nn.Module, seed: int, steps: int, lr: float = LR, warm_up: int = WARM_UP) -> list[float]:
    """Trains it; the mean loss of every tenth part of the steps, each on pictures before they are learned from."""
    x, y, *_ = pictures()
    passes = -(-steps * BATCH // len(x))
    order = np.concatenate([permutation("evidence", seed, each, len(x)) for each in range(passes)])
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr, fused=True)
    losses = []
    for step in range(steps):
        rate = lr * min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = torch.from_numpy(order[step * BATCH : (step + 1) * BATCH])
        loss = F.cross_entropy(model(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    tenth = steps // 10
    return [round(sum(losses[i : i + tenth]) / tenth, 4) for i in range(0, 10 * tenth, tenth)]


@torch.inference_mode()
def accuracy(model: nn.Module) -> float:
    _, _, x, y = pictures()
    model.eval()
    hits = sum(
        (model(a).argmax(-1) == b).sum().item() for a, b in zip(x.split(250), y.split(250), strict=True)
    )
    return hits / len(y)


def run(cell: str, seed: int) -> dict[str, Any]:
    kind, heads, steps = cell.rsplit("/", 2)
    model = build(kind, int(heads), seed)
    losses = train(model, seed, int(steps))
    return {"accuracy": accuracy(model), "losses": losses, "parameters": count_parameters(model)}


def _planned() -> list[Job]:
    """What says most for its time comes first; seed by seed, so that a stop leaves pairs."""
    here = [f"{kind}/{HEADS}/{STEPS}" for kind in KINDS] + [f"plain/{HEADS}/{TIME_STEPS}"]
    longer = [f"{kind}/{HEADS}/{LONG}" for kind in KINDS[:3]]
    others = [f"{kind}/{heads}/{STEPS}" for heads in (16, 4, 2) for kind in KINDS]
    others.insert(len(KINDS), f"plain/16/{TIME_STEPS_OF_16}")
    rounds = [(here, SEEDS), (longer, FEW), (others, FEW), (longer, REST), (others, REST)]
    return [Job(cell, seed) for cells, seeds in rounds for seed in seeds for cell in cells]


PART = Part(
    "thin_heads",
    "Fashion-MNIST, test accuracy of a ViT of width 32 with three blocks; cells are kind/heads/steps",
    {
        "width": WIDTH, "depth": DEPTH, "hidden": HIDDEN, "batch": BATCH, "lr": LR, "warm_up": WARM_UP,
        "weight_decay": WEIGHT_DECAY, "overlap": "half a head's width", "training pictures": 54_000,
    },
    _planned(),
    run,
)  # fmt: skip

"""A DINOv2 turned into linear cost without labels: how much of its eye for kinds of things is kept, and what it costs.

Half of the pictures (every second one) are learned from; the others judge: the share whose kind is the commonest among
the ten nearest of the other judging pictures, by the cosine of the class tokens. Attention alone is trained.
"""

import functools
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

from crosshead import convert_attention, swap_attention
from crosshead.conversion.costs import forward_costs
from crosshead.data.random import permutation

from .ledger import Job, Part
from .real_weights import SIZE, dinov2, stamps

LANDMARKS, BATCH, LR, NEIGHBOURS = 7, 8, 5e-4, 10
SEEDS = range(6100, 6103)
STEPS = (60, 240)


@functools.cache
def teacher() -> nn.Module:
    return dinov2()


@functools.cache
def tensors(training: bool) -> tuple[Tensor, list[str]]:
    """Half of the pictures on white ground, at 224 pixels, and their kinds."""
    transform = create_transform(**resolve_model_data_config(teacher()) | {"input_size": (3, SIZE, SIZE)})
    chosen = list(stamps().items())[0 if training else 1 :: 2]
    found = []
    for file, _ in chosen:
        picture = Image.open(file).convert("RGBA")
        found.append(
            transform(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))
        )
    return torch.stack(found), [kind for _, kind in chosen]


class Batches:
    """Pictures to learn from, mirrored by chance."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __iter__(self):
        pictures, _ = tensors(True)
        generator = torch.Generator().manual_seed(self.seed)
        for epoch in range(1_000):
            order = permutation("evidence", self.seed, epoch, len(pictures))
            for start in range(0, len(order) - BATCH + 1, BATCH):
                batch = pictures[order[start : start + BATCH]]
                yield batch.flip(-1) if torch.rand((), generator=generator) < 0.5 else batch


@torch.inference_mode()
def judged(model: nn.Module) -> dict[str, float]:
    """Of the judging pictures: right by ten nearest among each other, and the mean cosine with the teacher's."""
    pictures, kinds = tensors(False)
    found, before = (
        F.normalize(torch.cat([each(x) for x in pictures.split(8)]), dim=-1) for each in (model, teacher())
    )
    alike = found @ found.T
    alike.fill_diagonal_(-1)
    nearest = alike.topk(NEIGHBOURS, -1).indices.tolist()
    right = [
        Counter(kinds[i] for i in row).most_common(1)[0][0] == kind
        for row, kind in zip(nearest, kinds, strict=True)
    ]
    return {
        "accuracy": sum(right) / len(right),
        "cosine": (found * before).sum(-1).mean().item(),
        "pictures": len(kinds),
    }


def run(cell: str, seed: int) -> dict[str, Any]:
    if cell == "before":
        return judged(teacher())
    swapped = dinov2()
    swap_attention(swapped, "imhsa", init="paper", landmarks=LANDMARKS)
    if cell == "swapped":
        return judged(swapped)
    if cell == "costs":
        costs = forward_costs({"before": teacher(), "imhsa": swapped.eval()}, (SIZE, SIZE), 3, rounds=3)
        return {"costs": [vars(cost) for cost in costs]}
    steps = int(cell.split("/")[1])
    found = convert_attention(
        teacher(),
        Batches(seed),
        "imhsa",
        steps=steps,
        labels=False,
        lr=LR,
        attention_only=True,
        landmarks=LANDMARKS,
    )
    return {
        **judged(found.model.eval()),
        "losses": [round(x, 4) for x in found.losses[:: max(1, steps // 20)]],
    }


PART = Part(
    "conversion_real",
    "DINOv2 ViT-S/14 at 224 pixels to iMHSA with 7 x 7 landmarks; 10-nearest-neighbour accuracy over kinds of stamps",
    {"landmarks": LANDMARKS, "batch": BATCH, "lr": LR, "attention only": True, "labels": False},
    [
        Job("costs", 0),
        Job("before", 0),
        Job("swapped", 0),
        *(Job(f"distilled/{steps}", seed) for steps in STEPS for seed in SEEDS),
    ],
    run,
)

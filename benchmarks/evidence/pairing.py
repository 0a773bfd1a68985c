"""What drawing initial tensors by name does for a control whose MLP is wider: the correlation of the pairs.

The model and the data of ``thin_heads`` with four heads, 200 steps; once drawn by name (``train.paired_init``), once in
turn, as PyTorch does, so that all that follows the first wider matrix is drawn anew.
"""

from typing import Any

import torch

from . import thin_heads
from .ledger import Job, Part

SEEDS = range(9100, 9116)
HEADS, STEPS = 4, 200
KINDS = ("plain", "plain (equal parameters)", "talking")


def run(cell: str, seed: int) -> dict[str, Any]:
    drawn, kind = cell.split("/")
    if drawn == "by name":
        model = thin_heads.build(kind, HEADS, seed)
    else:
        torch.manual_seed(seed)
        model = thin_heads.started(kind, HEADS)
    thin_heads.train(model, seed, STEPS)
    return {"accuracy": thin_heads.accuracy(model)}


PART = Part(
    "pairing",
    "test accuracy on Fashion-MNIST by how tensors were drawn/kind; pairs are plain with each of the others",
    {"heads": HEADS, "steps": STEPS, "batch": thin_heads.BATCH},
    [Job(f"{drawn}/{kind}", seed) for seed in SEEDS for drawn in ("by name", "in turn") for kind in KINDS],
    run,
)

"""Overlapped heads as the MOHSA paper sets them, at its head widths, in ViT, CaiT and Swin; its eight paradigms in ViT.

The models of ``families``, trained as ``thin_heads`` trains. Of every run the heads' measures are kept beside its
accuracy (``crosshead.heads``): of the same 256 test pictures for all runs, and of the first 256 that the run itself
names rightly.
"""

from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from crosshead.data.datasets.registry import open_splits
from crosshead.heads import measure_heads
from crosshead.layers.schedule import PARADIGMS
from crosshead.recipe.compose import load_recipe
from crosshead.train.loop.model import build_paired, count_parameters

from . import thin_heads
from .families import EQUAL, FAMILIES, HIDDEN, PLAIN, started
from .ledger import Job, Part

SEEDS = range(12100, 12108)
FEW, REST = SEEDS[:4], SEEDS[4:]
LONGER = "plain (equal time)"
MEASURED, WARM_UP = 256, 100
MEASURES = (
    "effective_heads_cka", "cka_mean", "output_variance", "map_divergence", "map_similarity_mean", "entropy",
)  # fmt: skip


def run(cell: str, seed: int) -> dict[str, Any]:
    family, kind = cell.split("/", 1)
    small = FAMILIES[family]
    kind, steps = (PLAIN, small.time_steps) if kind == LONGER else (kind, small.steps)
    model = build_paired(lambda: started(family, kind), seed)
    losses = thin_heads.train(model, seed, steps, lr=small.lr, warm_up=WARM_UP)
    _, _, x, y = thin_heads.pictures()
    right = answers(model, x) == y
    return {
        "accuracy": right.float().mean().item(),
        "losses": losses,
        "parameters": count_parameters(model),
        "heads": measured(model, x[:MEASURED]),
        "heads on right pictures": measured(model, x[right][:MEASURED]),
    }


@torch.inference_mode()
def answers(model: nn.Module, x: Tensor) -> Tensor:
    model.eval()
    return torch.cat([model(each).argmax(-1) for each in x.split(250)])


def measured(model: nn.Module, x: Tensor) -> dict[str, list[float]]:
    """Measure -> its value in each block with several heads; effective heads as a share of their number.

    Maps of heads that mix them, as CaiT's do, have no divergence.
    """
    found: dict[str, list[float]] = {}
    for layer in measure_heads(model, x.split(64)):
        if layer.heads < 2:
            continue
        for name in MEASURES:
            if name not in layer.values:
                continue
            value = layer.values[name]
            number = value if isinstance(value, float) else fmean(_off_diagonal(value))
            found.setdefault(name, []).append(
                round(number / (layer.heads if name == "effective_heads_cka" else 1), 4)
            )
    return found


def _off_diagonal(value: list[Any]) -> list[float]:
    """Numbers of heads; of pairs of heads (a matrix), those of two different ones."""
    if not isinstance(value[0], list):
        return value
    return [x for i, row in enumerate(value) for j, x in enumerate(row) if i != j]


def choose_rates() -> None:
    """The rate of plain heads in each family: another seed, 3,000 of the validation pictures."""
    splits = open_splits(load_recipe("fashion_mnist", []))
    x = (splits.validation.pixels[:3000] / 255 - splits.info.mean[0]) / splits.info.std[0]
    y = torch.tensor(splits.validation.targets[:3000])
    for family, small in FAMILIES.items():
        for lr in (1e-3, 3e-3):
            model = build_paired(partial(started, family, PLAIN), 12099)
            thin_heads.train(model, 12099, small.steps // 2, lr=lr, warm_up=WARM_UP)
            print(family, lr, (answers(model, x) == y).float().mean().item(), flush=True)


def _planned() -> list[Job]:
    """Families first; then what plain heads do in as much time; then the paradigms. Seed by seed."""
    first = [f"{family}/{kind}" for family in FAMILIES for kind in (PLAIN, "index", EQUAL)]
    longer = [f"{family}/{LONGER}" for family in FAMILIES]
    paradigms = [f"vit/{paradigm}" for paradigm in PARADIGMS if paradigm != "index"]
    rounds = [(cells, seeds) for seeds in (FEW, REST) for cells in (first, longer, paradigms)]
    return [Job(cell, seed) for cells, seeds in rounds for seed in seeds for cell in cells]


PART = Part(
    "mohsa_pictures",
    "Fashion-MNIST, test accuracy of small ViT, CaiT and Swin at the MOHSA paper's head widths; cells are family/kind",
    {
        "families": {name: vars(small) for name, small in FAMILIES.items()}, "hidden": HIDDEN,
        "batch": thin_heads.BATCH, "warm_up": WARM_UP, "weight_decay": thin_heads.WEIGHT_DECAY,
        "measured": MEASURED,
    },
    _planned(),
    run,
)  # fmt: skip

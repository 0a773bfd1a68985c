"""iMHSA on real pictures: is its exchange between heads worth anything to a small ViT, by the number of heads?

The model, the pictures and the training of ``thin_heads``, with attention through 4 x 4 landmarks of 7 x 7 patches:
with the exchange and without, beside plain heads.
"""

from typing import Any

from torch import nn

from crosshead import swap_attention
from crosshead.train.loop.model import build_paired, count_parameters

from . import thin_heads
from .ledger import Job, Part

LANDMARKS, STEPS = 4, 1800
SEEDS = range(11100, 11108)
KINDS = {"apart": False, "exchange": True}
HEADS = (16, 8, 4)


def started(kind: str, num_heads: int) -> nn.Module:
    """Plain attention is swapped before anything is drawn, so that both kinds begin alike."""
    model = thin_heads.started("plain", num_heads)
    if kind in KINDS:
        swap_attention(model, "imhsa", landmarks=LANDMARKS, interaction=KINDS[kind], init="paper")
    return model


def run(cell: str, seed: int) -> dict[str, Any]:
    kind, heads = cell.split("/")
    model = build_paired(lambda: started(kind, int(heads)), seed)
    losses = thin_heads.train(model, seed, STEPS)
    return {
        "accuracy": thin_heads.accuracy(model),
        "losses": losses,
        "parameters": count_parameters(model),
    }


PART = Part(
    "imhsa_pictures",
    "Fashion-MNIST, test accuracy of a ViT of width 32 with attention through 4 x 4 landmarks; cells are kind/heads",
    {"landmarks": LANDMARKS, "steps": STEPS, "batch": thin_heads.BATCH, "lr": thin_heads.LR},
    [
        Job(f"{kind}/{heads}", seed)
        for some in (SEEDS[:4], SEEDS[4:])  # four seeds of all before more of any
        for heads in HEADS
        for seed in some
        for kind in (*KINDS, "plain")
    ],
    run,
)

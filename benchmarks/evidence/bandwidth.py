"""Does iMHSA's exchange between heads help where many symbols go through thin values?

Landmarks are as many as tokens (4 x 4 of 16), so that averaging costs nothing and the exchange alone is in question;
against the same attention through landmarks without it, by the number of heads at one width, and beside plain heads.
"""

from typing import Any

from .ledger import Job, Part
from .probe_runs import trained, training

SEEDS = range(4100, 4108)
APART, EXCHANGING = "imhsa:4:interaction=false", "imhsa:4"
COUNTS = (16, 8, 4, 2)
CONTROLS = ("apart (equal parameters)", "apart (equal time)")  # of sixteen heads
TIME_STEPS = 520  # apart, in the time of 480 steps with the exchange: 1.08 times, by the medians of the runs themselves


def run(cell: str, seed: int) -> dict[str, Any]:
    kind, heads = cell.rsplit("/", 1)
    options: dict[str, Any] = {}
    if kind == CONTROLS[0]:
        kind, options["parameters_of"] = APART, (EXCHANGING, int(heads))
    elif kind == CONTROLS[1]:
        kind, options["steps"] = APART, TIME_STEPS
    return trained(training("bandwidth", kind, int(heads), **options), seed)


PART = Part(
    "bandwidth",
    "bandwidth with 8 keys of 8 symbols, width 32, 480 steps of 16 sequences; accuracy (guessing 25 %) by kind/heads",
    {"keys": 8, "symbols": 8, "width": 32, "steps": 480, "batch": 16, "lr": 5e-3, "depth": 1},
    [
        Job(f"{kind}/{heads}", seed)
        for heads in COUNTS
        for seed in SEEDS
        for kind in (APART, EXCHANGING, "plain", *(CONTROLS if heads == 16 else ()))
    ],
    run,
)

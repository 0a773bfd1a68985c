"""Many relations at once in a wider model: fifteen of them at width 48.

Plain heads, sixteen talking and sixteen overlapped ones, and beside these plain heads of equal parameters and of equal
time; twelve plain heads are the number that did best in trials of other seeds.
"""

from typing import Any

from .ledger import Job, Part
from .probe_runs import trained, training

SEEDS = range(6100, 6105)
STEPS, WIDTH, ATTRIBUTES = 1000, 48, 6
# Of twelve plain heads, in the time of STEPS of sixteen talking (2.17 times a step) and overlapped ones (1.60): timed
# in turn, before any of these runs.
TIMES = {"talking": 2170, "overlap:1": 1600}
FIRST = ("plain/12", "talking/16", "plain (time of talking)/12")
THEN = (
    "plain (parameters of talking)/12", "overlap:1/16", "plain (time of overlap:1)/12",
    "plain (parameters of overlap:1)/12", "plain/16", "plain/8",
)  # fmt: skip


def run(cell: str, seed: int) -> dict[str, Any]:
    kind, heads = cell.rsplit("/", 1)
    options: dict[str, Any] = {"steps": STEPS, "attributes": ATTRIBUTES}
    if kind.startswith("plain ("):
        what, other = kind.removeprefix("plain (").rstrip(")").split(" of ")
        kind = "plain"
        options |= {"parameters_of": (other, 16)} if what == "parameters" else {"steps": TIMES[other]}
    return trained(training("pairs", kind, int(heads), WIDTH, **options), seed)


PART = Part(
    "pairs_wide",
    "pairs of six attributes, width 48, 1,000 steps of 32 sequences; accuracy (guessing 25 %) by kind/heads",
    {"attributes": ATTRIBUTES, "width": WIDTH, "steps": STEPS, "times": TIMES, "batch": 32, "depth": 1},
    [Job(cell, seed) for cells in (FIRST, THEN) for seed in SEEDS for cell in cells],
    run,
)

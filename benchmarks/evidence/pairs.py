"""Many relations at once: do interacting heads reach what no number of plain heads does, at equal cost too?

Six relations at width 16. Plain heads of every number, eight overlapped and eight talking ones, and beside these plain
heads of equal parameters (their number the best one's, four) and of equal time.
"""

from typing import Any

from .ledger import Job, Part
from .probe_runs import trained, training

SEEDS = range(5100, 5105)
STEPS = 1200
# Of four plain heads, in the time of 1,200 steps of eight talking (2.5 times a step) and overlapped ones (1.7 times),
# as docs/probes.md has the times of steps.
TIMES = {"talking": 3000, "overlap:1": 2000}
CELLS = (
    "plain/8", "plain/4", "plain/2", "plain/1", "overlap:1/8", "talking/8", "plain (parameters of overlap:1)/4",
    "plain (time of overlap:1)/4", "plain (time of talking)/4",
)  # fmt: skip


def run(cell: str, seed: int) -> dict[str, Any]:
    kind, heads = cell.rsplit("/", 1)
    options: dict[str, Any] = {}
    if kind.startswith("plain (parameters"):
        kind, options["parameters_of"] = "plain", ("overlap:1", 8)
    elif kind.startswith("plain (time of "):
        options["steps"] = TIMES[kind.removeprefix("plain (time of ").rstrip(")")]
        kind = "plain"
    return trained(training("pairs", kind, int(heads), **options), seed)


PART = Part(
    "pairs",
    "pairs of four attributes, width 16, 1,200 steps of 32 sequences; accuracy (guessing 25 %) by kind/heads",
    {"attributes": 4, "width": 16, "steps": STEPS, "times": TIMES, "batch": 32, "lr": 5e-3, "depth": 1},
    [Job(cell, seed) for seed in SEEDS for cell in CELLS],
    run,
)

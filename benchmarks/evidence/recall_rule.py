"""From which head width on is rank no longer short? Recall by keys of m attributes of K values, at three widths.

At each width of the model plain heads of 2, 4 and 8 channels; the thinnest also overlapped by one channel, and plain
with as many parameters as these. Where plain heads of some width come to what the overlapped thin ones do, the effect
is gone.
"""

from typing import Any

from .ledger import Job, Part
from .probe_runs import trained, training

TASKS = ((2, 6), (4, 3), (2, 12), (4, 5))  # attributes, values; the last two leave most combinations out
SEEDS = range(3100, 3105)
HEAD_WIDTHS = (2, 4, 8)


def _cells(width: int, attributes: int, values: int) -> list[str]:
    at = f"{attributes}/{values}/{width}"
    thin = width // HEAD_WIDTHS[0]
    plain = [f"{at}/plain/{width // each}" for each in HEAD_WIDTHS]
    return [*plain, f"{at}/overlap:1/{thin}", f"{at}/plain (equal parameters)/{thin}"]


def run(cell: str, seed: int) -> dict[str, Any]:
    attributes, values, width, kind, heads = cell.split("/")
    options: dict[str, Any] = {"attributes": int(attributes), "values": int(values)}
    if kind.startswith("plain ("):
        kind, options["parameters_of"] = "plain", ("overlap:1", int(heads))
    return trained(training("recall", kind, int(heads), int(width), **options), seed)


PART = Part(
    "recall_rule",
    "recall with 32 keys, 480 steps of 16 sequences; accuracy (guessing 25 %) by attributes/values/width/kind/heads",
    {"keys": 32, "steps": 480, "batch": 16, "lr": 5e-3, "depth": 1},
    [
        Job(cell, seed)
        for width in (16, 32, 64)
        for task in TASKS
        for seed in SEEDS
        for cell in _cells(width, *task)
    ],
    run,
)

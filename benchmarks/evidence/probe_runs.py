"""What the parts that train probes share: a cell's text, and how it is trained."""

from functools import cache
from typing import Any

from crosshead.probes import PROBES
from crosshead.probes.kinds import Kind
from crosshead.probes.model import count_gmacs, count_parameters, equal_hidden
from crosshead.probes.running import Job as Training


@cache
def training(
    name: str,
    kind: str,
    num_heads: int,
    width: int | None = None,
    *,
    steps: int | None = None,
    parameters_of: tuple[str, int] | None = None,
    **options: int,
) -> Training:
    """One kind of heads on a probe; with ``parameters_of``, its MLP as wide as gives the parameters of that kind with
    that number of heads."""
    found = PROBES[name](**options)
    job = Training(
        found, Kind.parse(kind), width or found.width, num_heads, found.depth, steps or found.steps,
        found.batch_size, found.lr,
    )  # fmt: skip
    if parameters_of is None:
        return job
    other = training(name, *parameters_of, width, **options)
    wanted = count_parameters(other.model(0))
    hidden = equal_hidden(found, wanted, width=job.width, num_heads=num_heads, depth=job.depth)
    return Training(**{**vars(job), "hidden": hidden})


def trained(job: Training, seed: int) -> dict[str, Any]:
    """What is kept of one seed: accuracy at the end, and on the way."""
    run = job.train(seed)
    model = job.model(seed)
    return {
        "accuracy": round(run.accuracy, 5),
        "curve": [(step, round(share, 4)) for step, share in run.curve],
        "parameters": count_parameters(model),
        "mmacs": round(1e3 * count_gmacs(model), 4),
        "steps": job.steps,
    }

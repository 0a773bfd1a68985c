"""What a conversion came to."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from crosshead.conversion.costs import Cost

BEFORE, SWAPPED, CONVERTED = "before", "swapped, untrained", "converted"
TUNED, PLAIN = "swapped, fine-tuned", "not swapped, trained on"


@dataclass(frozen=True)
class Row:
    """A way to spend the time, and what the model is then worth: ``value`` of the measure on images that no way saw,
    ``validation`` on those by which ``lr`` was chosen of the rates that were tried (None where one was). ``seconds``
    are of its steps, processor time on a CPU, as a median step's time says."""

    what: str
    steps: int
    seconds: float
    value: float
    validation: float | None = None
    lr: float | None = None


@dataclass(frozen=True)
class Conversion:
    """``model`` is the converted one. ``rows``: the model before, swapped and untrained, converted, and the controls of
    equal time; their values are of ``measure`` on ``images``. ``costs`` of the model before and after, by size."""

    model: nn.Module = field(repr=False)
    kind: str
    options: dict[str, Any]
    measure: str
    images: str
    labels: bool
    match_steps: int
    seed: int
    rows: list[Row]
    costs: list[Cost]
    conditions: dict[str, Any]

    def row(self, what: str) -> Row:
        return next(row for row in self.rows if row.what == what)

    def words(self) -> str:
        """What may be said of it, in a sentence or two."""
        before, swapped, converted = (self.row(what) for what in (BEFORE, SWAPPED, CONVERTED))
        taught = (
            "labels and the model's own answers" if self.labels else "the model's own answers, without labels"
        )
        said = (
            f"{self.measure} on {self.images}: {before.value:.2%} before, {swapped.value:.2%} swapped and untrained, "
            f"{converted.value:.2%} after {converted.steps} steps on {taught}."
        )
        controls = [row for row in self.rows if row.what in (TUNED, PLAIN)]
        beside = ", ".join(f"{row.value:.2%} {row.what}" for row in controls)
        more = f" In the same time, on labels alone: {beside}." if controls else ""
        return f"{said}{more} One seed ({self.seed}): it says nothing of how another would come out."

    def to_json(self) -> str:
        """All but the model."""
        held = {key: value for key, value in vars(self).items() if key != "model"}
        held |= {"rows": [asdict(row) for row in self.rows], "costs": [_known(cost) for cost in self.costs]}
        return json.dumps(held, indent=1, allow_nan=False)


def _known(cost: Cost) -> dict[str, Any]:
    return {key: None if value != value else value for key, value in asdict(cost).items()}


def conditions(model: nn.Module) -> dict[str, Any]:
    """What times depend on."""
    first = next(model.parameters())
    return {
        "device": torch.cuda.get_device_name(first.device) if first.is_cuda else str(first.device),
        "dtype": str(first.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }

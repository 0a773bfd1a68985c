"""One relation after another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..probe import Probe, check_counts, register_probe, shuffled, taken


@register_probe
@dataclass(frozen=True)
class Chain(Probe):
    """Each key has a name, the name of another key, and a payload. A query names a key and is asked for the payload of
    the key that this one points to.

    Args:
        keys: in a sequence, and as many queries.
        payloads: how many different ones.
    """

    name = "chain"
    asks = (
        "follow a pointer: first fetch a name through attention, then attend by it, one block after the other, so that "
        "values must carry what the next block's queries need whole"
    )
    width = 32
    depth = 2
    steps = 1000

    keys: int = 8
    payloads: int = 4

    def __post_init__(self) -> None:
        check_counts(self, keys=(2, 128), payloads=(2, 64))

    @property
    def tokens(self) -> int:
        return 2 * self.keys

    @property
    def features(self) -> int:
        return 2 * self.keys + self.payloads + 1

    @property
    def answers(self) -> int:
        return self.payloads

    def examples(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        names = torch.eye(self.keys).expand(count, -1, -1)
        points_to, order = (shuffled(count, self.keys, generator) for _ in range(2))
        payload = torch.randint(self.payloads, (count, self.keys), generator=generator)
        marks = torch.zeros(count, self.keys, 1)
        held = torch.cat([names, taken(names, points_to), torch.eye(self.payloads)[payload], marks], 2)
        blank = torch.zeros(count, self.keys, self.keys + self.payloads)
        asked = torch.cat([taken(names, order), blank, marks + 1], 2)
        right = taken(payload, taken(points_to, order))
        return torch.cat([held, asked], 1), right[..., None]

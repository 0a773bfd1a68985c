"""Recall by a key of several attributes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..probe import Probe, check_counts, combinations, one_hot, register_probe, shuffled, taken


@register_probe
@dataclass(frozen=True)
class Recall(Probe):
    """Keys are ``attributes`` symbols and a payload; a query has the symbols of one key and names its payload.

    Args:
        attributes: m, symbols of a key.
        values: K of each; the fewest that tell ``keys`` apart unless given.
        keys: in a sequence, and as many queries.
        payloads: how many different ones.
    """

    name = "recall"
    asks = (
        "find the one key that agrees in every attribute among keys that agree in all but one: the logits of one head "
        "must tell combinations of attributes apart, which takes rank, and a thin head has little"
    )

    attributes: int = 2
    values: int | None = None
    keys: int = 32
    payloads: int = 4

    def __post_init__(self) -> None:
        check_counts(self, attributes=(1, 8), keys=(2, 256), payloads=(2, 64))
        if self.values is None:
            fewest = next(k for k in range(2, self.keys + 1) if k**self.attributes >= self.keys)
            object.__setattr__(self, "values", fewest)
        check_counts(self, values=(2, 256))
        if not self.keys <= self.count_of_keys <= 100_000:
            raise ValueError(
                f"probe {self.name!r}: {self.attributes} attributes of {self.values} values are {self.count_of_keys:,} "
                f"different keys; expected from {self.keys} (the keys of a sequence) to 100,000"
            )

    @property
    def count_of_keys(self) -> int:
        assert self.values is not None
        return self.values**self.attributes

    @property
    def tokens(self) -> int:
        return 2 * self.keys

    @property
    def features(self) -> int:
        assert self.values is not None
        return self.attributes * self.values + self.payloads + 1

    @property
    def answers(self) -> int:
        return self.payloads

    def examples(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        keys, payload, order = draw_recall(self, count, generator)
        marks = torch.zeros(count, self.keys, 1)
        assert self.values is not None
        held = torch.cat([one_hot(keys, self.values), one_hot(payload[..., None], self.payloads), marks], 2)
        asked = taken(
            torch.cat([one_hot(keys, self.values), torch.zeros(count, self.keys, self.payloads)], 2), order
        )
        return torch.cat([held, torch.cat([asked, marks + 1], 2)], 1), taken(payload, order)[..., None]


def draw_recall(probe: Recall, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Keys (count, keys, attributes), all different, their payloads (count, keys), and the order of the queries."""
    assert probe.values is not None
    every = combinations(probe.attributes, probe.values)
    keys = every[shuffled(count, len(every), generator)[:, : probe.keys]]
    payload = torch.randint(probe.payloads, (count, probe.keys), generator=generator)
    return keys, payload, shuffled(count, probe.keys, generator)

"""Much to carry through thin values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..probe import Probe, check_counts, one_hot, register_probe, shuffled, taken


@register_probe
@dataclass(frozen=True)
class Bandwidth(Probe):
    """A query names one key, by one attribute, and is asked for all of its payload: ``symbols`` of four values.

    Args:
        keys: in a sequence, and as many queries.
        symbols: of a payload.
    """

    name = "bandwidth"
    asks = (
        "carry many symbols from one key at once: finding it is easy, but the values of one thin head hold little, so "
        "that several heads must look at the same place and each bring another part"
    )
    width = 32
    num_heads = 16

    keys: int = 8
    symbols: int = 8

    def __post_init__(self) -> None:
        check_counts(self, keys=(2, 128), symbols=(1, 64))

    @property
    def tokens(self) -> int:
        return 2 * self.keys

    @property
    def features(self) -> int:
        return self.keys + self.symbols * self.answers + 1

    @property
    def questions(self) -> int:
        return self.symbols

    @property
    def answers(self) -> int:
        return 4

    def examples(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        names = torch.eye(self.keys).expand(count, -1, -1)
        payload = torch.randint(self.answers, (count, self.keys, self.symbols), generator=generator)
        order = shuffled(count, self.keys, generator)
        marks = torch.zeros(count, self.keys, 1)
        held = torch.cat([names, one_hot(payload, self.answers), marks], 2)
        blank = torch.zeros(count, self.keys, self.symbols * self.answers)
        asked = torch.cat([taken(names, order), blank, marks + 1], 2)
        return torch.cat([held, asked], 1), taken(payload, order)

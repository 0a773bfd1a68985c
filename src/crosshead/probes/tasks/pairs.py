"""Many relations at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations as subsets

import torch
from torch import Tensor

from ..probe import IGNORED, Probe, check_counts, one_hot, register_probe


@register_probe
@dataclass(frozen=True)
class Pairs(Probe):
    """A query has several attributes, and is asked for every pair of them: which payload has the one key that agrees in
    that pair?

    Args:
        attributes: a query's and a key's; n of them have n (n - 1) / 2 pairs.
        values: of each.
        keys, queries: in a sequence.
        payloads: how many different ones.
    """

    name = "pairs"
    asks = (
        "hold as many patterns of attention at once as there are pairs of attributes (which takes heads), each of two "
        "attributes (which takes rank): at one width, more plain heads are thinner and fewer are too few"
    )
    steps = 1200
    batch_size = 32

    attributes: int = 4
    values: int = 5
    keys: int = 24
    queries: int = 32
    payloads: int = 4

    def __post_init__(self) -> None:
        check_counts(
            self, attributes=(2, 12), values=(2, 64), keys=(2, 256), queries=(1, 256), payloads=(2, 64)
        )

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return [*subsets(range(self.attributes), 2)]

    @property
    def tokens(self) -> int:
        return self.keys + self.queries

    @property
    def features(self) -> int:
        return self.attributes * self.values + self.payloads + 1

    @property
    def questions(self) -> int:
        return len(self.pairs)

    @property
    def answers(self) -> int:
        return self.payloads

    def examples(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        keys = torch.randint(self.values, (count, self.keys, self.attributes), generator=generator)
        asked = torch.randint(self.values, (count, self.queries, self.attributes), generator=generator)
        payload = torch.randint(self.payloads, (count, self.keys), generator=generator)
        agrees = asked[:, :, None] == keys[:, None]
        fits = torch.stack(
            [agrees[..., i] & agrees[..., j] for i, j in self.pairs], 2
        )  # (count, Q, pairs, keys)
        right = torch.where(fits.sum(-1) == 1, (fits * payload[:, None, None]).sum(-1), IGNORED)
        blank = torch.zeros(count, self.queries, self.payloads)
        marks = torch.zeros(count, self.keys, 1), torch.ones(count, self.queries, 1)
        held = torch.cat(
            [one_hot(keys, self.values), one_hot(payload[..., None], self.payloads), marks[0]], 2
        )
        return torch.cat([held, torch.cat([one_hot(asked, self.values), blank, marks[1]], 2)], 1), right

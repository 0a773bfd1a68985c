"""How many, in place of which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..probe import Probe, check_counts, one_hot, register_probe


@register_probe
@dataclass(frozen=True)
class Counting(Probe):
    """A query has two attributes and is asked how many keys agree with it in both, from none to ``most``.

    Args:
        most: the largest answer.
        values: of each attribute.
        queries: in a sequence; there are ``3 * queries`` keys.
    """

    name = "counting"
    asks = (
        "tell how many keys agree, not what they hold: a softmax gives shares, so that a count must be read off how "
        "much attention is left for all others"
    )
    steps = 800

    most: int = 3
    values: int = 5
    queries: int = 14

    def __post_init__(self) -> None:
        check_counts(self, most=(1, 3), values=(2, 64), queries=(1, 64))
        if self.queries > self.values**2:
            raise ValueError(
                f"probe {self.name!r}: {self.queries} different queries want more than {self.values} values of two "
                "attributes"
            )

    @property
    def keys(self) -> int:
        return 3 * self.queries

    @property
    def tokens(self) -> int:
        return self.keys + self.queries

    @property
    def features(self) -> int:
        return 2 * self.values + 1

    @property
    def answers(self) -> int:
        return self.most + 1

    def examples(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        every = torch.rand(count, self.values**2, generator=generator).argsort(1)
        asked = every[:, : self.queries]
        # Each query's own count is even over all answers; the other places hold what nobody asks for, if there is such.
        wanted = torch.randint(self.answers, asked.shape, generator=generator)
        places = torch.arange(3).expand(count, self.queries, 3) < wanted[..., None]
        others = every[:, self.queries :] if self.queries < self.values**2 else torch.full((count, 1), -1)
        filling = others.gather(1, torch.randint(others.shape[1], (count, self.keys), generator=generator))
        keys = torch.where(places.flatten(1), asked.repeat_interleave(3, 1), filling)
        tokens = torch.cat([keys, asked], 1)
        split = torch.stack([tokens.clamp(min=0) // self.values, tokens.clamp(min=0) % self.values], -1)
        shown = one_hot(split, self.values) * (tokens >= 0)[..., None]
        marks = torch.cat([torch.zeros(count, self.keys, 1), torch.ones(count, self.queries, 1)], 1)
        return torch.cat([shown, marks], 2), wanted[..., None]

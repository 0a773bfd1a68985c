"""Same or different, over a distance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..probe import IGNORED, Probe, check_counts, one_hot, register_probe

_STEPS = ((0, 1), (1, 0), (0, 3), (2, 0), (1, 1), (2, 2), (1, -1), (3, 1))  # rows down, columns to the right


@register_probe
@dataclass(frozen=True)
class Distance(Probe):
    """Tokens with a symbol each lie on a grid, and know their row and column; each is asked for several distances:
    is the symbol there the same as yours?

    Args:
        distances: 1 to 8, each another direction and length.
        side: of the grid.
        values: of the symbols.
    """

    name = "distance"
    asks = (
        "look at several fixed distances at once and compare what is there with what is here: each distance is a "
        "pattern over rows and columns, of a rank that grows with the grid"
    )
    steps = 1000

    distances: int = 2
    side: int = 6
    values: int = 2

    def __post_init__(self) -> None:
        check_counts(self, distances=(1, len(_STEPS)), side=(4, 16), values=(2, 32))

    @property
    def tokens(self) -> int:
        return self.side**2

    @property
    def features(self) -> int:
        return 2 * self.side + self.values

    @property
    def questions(self) -> int:
        return self.distances

    @property
    def answers(self) -> int:
        return 2

    def examples(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        n = self.side
        here = torch.randint(self.values, (count, n, n), generator=generator)
        right = torch.full((count, n, n, self.distances), IGNORED)
        for number, (down, across) in enumerate(_STEPS[: self.distances]):
            rows, columns = slice(0, n - down), slice(max(0, -across), n - max(0, across))
            there = here[:, down:, max(0, across) : n + min(0, across)]
            right[:, rows, columns, number] = (there == here[:, rows, columns]).long()
        # Different is the more frequent answer: it is left out at random until both come equally often.
        kept = 1 / (self.values - 1)
        left_out = (right == 0) & (torch.rand(right.shape, generator=generator) >= kept)
        right = right.masked_fill(left_out, IGNORED)
        places = torch.cartesian_prod(torch.arange(n), torch.arange(n)).expand(count, -1, -1)
        tokens = torch.cat([one_hot(places, n), one_hot(here.flatten(1)[..., None], self.values)], 2)
        return tokens, right.flatten(1, 2)

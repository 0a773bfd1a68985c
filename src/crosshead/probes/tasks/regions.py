"""What a region holds as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..probe import Probe, check_counts, one_hot, register_probe


@register_probe
@dataclass(frozen=True)
class Regions(Probe):
    """Tokens lie on a grid of regions of 2 x 2, and know their row and column. Each region has a symbol, which most of
    its tokens show; each token has the address of some region and is asked for that region's symbol.

    Args:
        side: regions a side.
        values: of the symbols.
    """

    name = "regions"
    asks = (
        "gather what a whole region says, by its address: an average over neighbours is what is wanted, so that "
        "attention through landmarks of that size loses nothing"
    )
    steps = 640

    side: int = 4
    values: int = 4

    def __post_init__(self) -> None:
        check_counts(self, side=(2, 8), values=(2, 32))

    @property
    def tokens(self) -> int:
        return (2 * self.side) ** 2

    @property
    def features(self) -> int:
        return 4 * self.side + 2 * self.side + self.values

    @property
    def answers(self) -> int:
        return self.values

    def examples(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        n = 2 * self.side
        symbol = torch.randint(self.values, (count, self.side, self.side), generator=generator)
        odd_one = torch.randint(
            4, symbol.shape, generator=generator
        )  # one token of each region shows any symbol
        shown = symbol[..., None].expand(*symbol.shape, 4).clone()
        stray = torch.randint(self.values, symbol.shape, generator=generator)
        shown.scatter_(-1, odd_one[..., None], stray[..., None])
        laid = shown.view(count, self.side, self.side, 2, 2).transpose(2, 3).reshape(count, n * n)
        address = torch.randint(self.side, (count, n * n, 2), generator=generator)
        places = torch.cartesian_prod(torch.arange(n), torch.arange(n)).expand(count, -1, -1)
        tokens = [one_hot(places, n), one_hot(address, self.side), one_hot(laid[..., None], self.values)]
        right = symbol.flatten(1).gather(1, address[..., 0] * self.side + address[..., 1])
        return torch.cat(tokens, 2), right[..., None]

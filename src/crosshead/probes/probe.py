"""What a probe is: sequences and questions made of (seed, split, index), and what they ask of attention heads."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Split = Literal["train", "test"]
IGNORED = -100  # a question that has no answer in this sequence


@dataclass(frozen=True)
class Probe:
    """A small task that only attention can do. A subclass is a frozen dataclass whose fields are its options.

    It says in ``examples`` how sequences come about. Everything else serves those who read it (``asks``), or is how a
    model is trained on it unless told otherwise: with ``depth`` blocks of ``num_heads`` heads at ``width`` channels.
    """

    name: ClassVar[str]
    asks: ClassVar[str]
    width: ClassVar[int] = 16
    num_heads: ClassVar[int] = 8
    depth: ClassVar[int] = 1
    steps: ClassVar[int] = 480
    batch_size: ClassVar[int] = 16
    lr: ClassVar[float] = 5e-3

    @property
    def tokens(self) -> int:
        """N, the length of a sequence."""
        raise NotImplementedError

    @property
    def features(self) -> int:
        """F, what a token consists of."""
        raise NotImplementedError

    @property
    def questions(self) -> int:
        """How many each query token is asked."""
        return 1

    @property
    def answers(self) -> int:
        """How many answers a question may have."""
        raise NotImplementedError

    @property
    def chance(self) -> float:
        """The share of right answers that guessing gives."""
        return 1 / self.answers

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns for interactions that want the tokens on a grid: as square as their number allows."""
        rows = next(r for r in range(math.isqrt(self.tokens), 0, -1) if self.tokens % r == 0)
        return rows, self.tokens // rows

    def examples(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sequences (count, N, F), and the right answers (count, Q, questions) of the last Q tokens, ``IGNORED`` where
        a question has none. All that is random in them comes from ``generator``."""
        raise NotImplementedError

    def batch(self, seed: int, split: Split, index: int, count: int) -> tuple[Tensor, Tensor]:
        """``examples`` as a function of its arguments alone."""
        digest = hashlib.sha256(f"{self.name} {seed} {split} {index}".encode()).digest()
        return self.examples(count, torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))


PROBES: dict[str, type[Probe]] = {}


def register_probe(cls: type[Probe]) -> type[Probe]:
    """Makes a probe known under ``cls.name``; serves as a decorator.

    Raises:
        ValueError: for a name that another class has.
    """
    if PROBES.setdefault(cls.name, cls) is not cls:
        raise ValueError(f"probe {cls.name!r} is {PROBES[cls.name].__qualname__}; choose another name")
    return cls


def one_hot(symbols: Tensor, count: int) -> Tensor:
    """(..., m) symbols as (..., m * count) zeros and ones."""
    return F.one_hot(symbols, count).flatten(-2).float()


def combinations(attributes: int, values: int) -> Tensor:
    """All of them, (values ** attributes, attributes)."""
    return torch.cartesian_prod(*[torch.arange(values)] * attributes).view(-1, attributes)


def shuffled(count: int, length: int, generator: torch.Generator) -> Tensor:
    """``count`` permutations of ``length``."""
    return torch.rand(count, length, generator=generator).argsort(1)


def taken(values: Tensor, places: Tensor) -> Tensor:
    """``values`` (B, n, ...) at ``places`` (B, k) of each sequence."""
    index = places.reshape(*places.shape, *[1] * (values.dim() - 2)).expand(*places.shape, *values.shape[2:])
    return values.gather(1, index)


def check_counts(probe: Probe, **limits: tuple[int, int]) -> None:
    """Raises ValueError for an option outside of its (least, most)."""
    for name, (least, most) in limits.items():
        value = getattr(probe, name)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(
                f"probe {probe.name!r}: {name} must be a whole number from {least} to {most}, got {value!r}"
            )

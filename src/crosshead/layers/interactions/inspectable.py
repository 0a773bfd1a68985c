"""What looks into heads asks of an interaction, beside computing: one protocol, whose absence is an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ...ops.interactive import AttentionFactors
from ...ops.overlap import overlapped_attention_weights
from ..layer import Heads, Layer, Mixing


class LandmarkMixing(NamedTuple):
    """Attention through rows x columns landmarks; the heads' shares (h, h) in either factor, None where apart."""

    rows: int
    columns: int
    mix_query: Tensor | None
    mix_key: Tensor | None


class MapMixing(NamedTuple):
    """Maps mixed by ``matrix`` (h, h) after the softmax, times ``gain`` (h,), plus ``shift`` (h,)."""

    matrix: Tensor
    gain: Tensor
    shift: Tensor


class TokenMixing(NamedTuple):
    """Mixing that the tokens bring: ``matrices`` (B, N, 4, h, h), see ``ops.dcmha``."""

    matrices: Tensor


class PseudoHeadMixing(NamedTuple):
    """Pseudo-heads mixed of all heads' queries, keys and values, and heads of those: (h, h, P), see ``ops.iha``."""

    query: Tensor
    key: Tensor
    value: Tensor
    collapse: Tensor


AnyMixing = Mixing | LandmarkMixing | MapMixing | TokenMixing | PseudoHeadMixing


@runtime_checkable
class Inspectable(Protocol):
    """An interaction that says how its heads attend. ``crosshead.heads`` measures and draws no others."""

    def operands(self, layer: Layer, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, h, N, width) as they meet; a head's own channels stand in the middle."""
        ...

    def weights(self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]) -> Tensor:
        """What the values are multiplied by: (B, len(chosen), len(queries), N), for those heads and queries."""
        ...

    def own_weights(
        self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]
    ) -> Tensor:
        """``weights`` as they would be if the heads gave each other nothing."""
        ...

    def signed(self, heads: Heads) -> bool:
        """Whether the weights may be negative, as where heads mix their maps."""
        ...

    def mixing(self, layer: Layer, heads: Heads) -> AnyMixing | None:
        """How weights come of the operands' products beyond a softmax; None where it is a softmax."""
        ...

    def exchanges(self, layer: Layer) -> bool:
        """Whether the heads give each other anything."""
        ...

    def without_head(self, layer: Layer, head: int) -> AbstractContextManager[None]:
        """While it lasts, ``head`` gives the others nothing."""
        ...


@runtime_checkable
class Factored(Protocol):
    """An interaction whose maps are products of two thin factors, of which measures come without a map."""

    def factors(self, layer: Layer, heads: Heads) -> AttentionFactors:
        """A_Q and A_K, before and after the heads were mixed; linear in N."""
        ...


_ASKED = ("operands", "weights", "own_weights", "signed", "mixing", "exchanges", "without_head")


def inspectable(interaction: object) -> Inspectable:
    """``interaction``, of which all that looking asks for is known.

    Raises:
        ValueError: a kind that does not say how its heads attend; what it lacks is named.
    """
    if isinstance(interaction, Inspectable):
        return interaction
    lacking = [name for name in _ASKED if not callable(getattr(interaction, name, None))]
    raise ValueError(
        f"interaction {getattr(interaction, 'kind', interaction)!r} does not say how its heads attend: it has no "
        f"{', '.join(lacking)}, which crosshead.layers.Inspectable describes"
    )


def weights_apart(heads: Heads, chosen: Sequence[int], queries: Sequence[int]) -> Tensor:
    """The rows of heads that attend each for itself: ``own_weights`` of kinds that are plain attention then."""
    q, k, _ = (x[:, list(chosen)] for x in heads.split())
    mask = heads.logits_bias()
    if mask is not None and mask.dim() > 2 and mask.shape[-3] > 1:
        mask = mask[..., list(chosen), :, :]
    return overlapped_attention_weights(
        q, k, k, 0, attn_mask=mask, is_causal=heads.is_causal, scale=heads.scale, queries=queries
    )


@contextmanager
def columns_at_zero(matrices: Sequence[Tensor | None], head: int) -> Iterator[None]:
    """While the context lasts, column ``head`` of mixing matrices (h, h), what that head gives, is 0."""
    kept = [(matrix, matrix[:, head].clone()) for matrix in matrices if matrix is not None]
    try:
        with torch.no_grad():
            for matrix, _ in kept:
                matrix[:, head] = 0
        yield
    finally:
        with torch.no_grad():
            for matrix, column in kept:
                matrix[:, head] = column

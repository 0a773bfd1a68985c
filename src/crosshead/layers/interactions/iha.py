"""Interleaved heads (IHA, arXiv 2602.21371): pseudo-heads mixed of all heads, whose tokens attend to one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...ops.iha.fast import attend_pseudo_heads, pseudo_heads
from ...ops.iha.naive import pseudo_weights, taken
from ..capabilities import Capability
from ..layer import Heads, Layer
from .base import Interaction
from .inspectable import PseudoHeadMixing, weights_apart


@dataclass(frozen=True)
class Interleaved(Interaction):
    """Each head has pseudo-heads, mixtures of all heads, and each of their queries sees the keys of all of them.

    ``interleave_query``, ``interleave_key`` and ``interleave_value`` hold the shares of the heads in the pseudo-heads,
    ``collapse`` those of the pseudo-heads in the heads that come out, (h, h, P) each. They start as plain attention.
    Where a host rotates queries and keys, the pseudo-heads are rotated.

    Args:
        pseudo_heads: P, of each head, at least 1; the attention costs P² times as much.
    """

    kind: ClassVar[str] = "iha"
    learned: ClassVar[tuple[str, ...]] = (
        "interleave_query",
        "interleave_key",
        "interleave_value",
        "collapse",
    )
    # Decay pulls towards 0, and the heads apart are the identity.
    no_weight_decay: ClassVar[tuple[str, ...]] = learned

    pseudo_heads: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.pseudo_heads, bool) or not isinstance(self.pseudo_heads, int):
            raise ValueError(f"pseudo_heads must be a whole number, got {self.pseudo_heads!r}")
        if self.pseudo_heads < 1:
            raise ValueError(f"pseudo_heads must be at least 1, got {self.pseudo_heads}")

    @property
    def carries(self) -> frozenset[Capability]:
        return frozenset(
            {
                Capability.ROTARY,
                Capability.BIAS,
                Capability.MASK,
                Capability.OUTPUT_NORM,
                Capability.GATE,
                Capability.QUERY_BIAS,
                Capability.OTHER_KEYS,
                Capability.VALUE_WIDTH,
                Capability.FIXED_WIDTH,
                Capability.CHANNELS,
            }
        )

    def prepare(self, layer: Layer, *, preserve: bool) -> None:
        weight: Any = layer.get_submodule(layer.projection).weight
        count = self.pseudo_heads
        same = torch.eye(layer.num_heads, device=weight.device, dtype=weight.dtype)
        same = same.unsqueeze(2).repeat(1, 1, count)
        # Equal pseudo-heads would get equal gradients and stay equal for ever. So their values are of different sizes,
        # and so are their shares in what comes out: with equal keys both average to what one head gives.
        sizes = torch.linspace(1.5, 0.5, count, device=weight.device, dtype=weight.dtype)
        uneven = same * (sizes if count > 1 else 1.0)
        starts = (same, same, uneven, uneven / count)
        for name, start in zip(self.learned, starts, strict=True):
            layer.register_parameter(name, nn.Parameter(start.clone()))

    def attend(self, layer: Any, heads: Heads) -> Tensor:
        q, k = _asking(layer, heads)
        out = attend_pseudo_heads(
            q,
            k,
            pseudo_heads(heads.v.transpose(1, 2), layer.interleave_value),
            layer.collapse,
            attn_mask=heads.logits_bias(),
            is_causal=heads.is_causal,
            scale=heads.scale,
            dropout_p=heads.dropout_p,
        )
        return out.transpose(1, 2).flatten(2)

    def weights(self, layer: Any, heads: Heads, chosen: Sequence[int], queries: Sequence[int]) -> Tensor:
        """What a head takes of a token, of all heads' values in one sum: see ``ops.iha``."""
        weights = pseudo_weights(*_asking(layer, heads), **heads.added(), scale=heads.scale, queries=queries)
        return taken(weights, layer.interleave_value, layer.collapse)[:, list(chosen)]

    def operands(self, layer: Layer, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
        return heads.split()

    def own_weights(
        self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]
    ) -> Tensor:
        return weights_apart(heads, chosen, queries)

    def signed(self, heads: Heads) -> bool:
        return True

    def mixing(self, layer: Any, heads: Heads) -> PseudoHeadMixing:
        return PseudoHeadMixing(*(getattr(layer, name) for name in self.learned))

    def exchanges(self, layer: Layer) -> bool:
        return layer.num_heads > 1

    @contextmanager
    def without_head(self, layer: Any, head: int) -> Iterator[None]:
        """Its own pseudo-heads keep what it gives to them; no other pseudo-head and no other output has any of it."""
        others = [i for i in range(layer.num_heads) if i != head]
        given = [(getattr(layer, name), (head, others)) for name in self.learned[:3]]
        parts: list[tuple[Tensor, Any]] = [*given, (layer.collapse, (others, head))]
        kept = [(matrix, at, matrix[at].clone()) for matrix, at in parts]
        try:
            with torch.no_grad():
                for matrix, at, _ in kept:
                    matrix[at] = 0
            yield
        finally:
            with torch.no_grad():
                for matrix, at, values in kept:
                    matrix[at] = values


def _asking(layer: Any, heads: Heads) -> tuple[Tensor, Tensor]:
    """The pseudo-heads' queries and keys (B, h, P, N, d), rotated where the host does so, in the values' dtype."""
    q = pseudo_heads(heads.q.transpose(1, 2), layer.interleave_query)
    k = pseudo_heads(heads.k.transpose(1, 2), layer.interleave_key)
    if (
        heads.rotate is not None
    ):  # by the rotation of the head whose pseudo-heads they are, a pseudo-head at a time
        q, k = (torch.stack([heads.rotate(part) for part in x.unbind(2)], dim=2) for x in (q, k))
    return q.to(heads.v.dtype), k.to(heads.v.dtype)

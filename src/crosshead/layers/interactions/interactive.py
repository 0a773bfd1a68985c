"""Interactive heads at linear cost, iMHSA (arXiv 2402.17507, section 3): attention through landmarks, heads mixed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from ...ops.interactive import AttentionFactors, Backend, attention_factors, interactive_attention
from ...ops.interactive.arguments import Rotations, check_tokens
from ..capabilities import Capability
from ..layer import Heads, Layer
from ..rotation import Rotation
from .base import Interaction
from .inspectable import LandmarkMixing, columns_at_zero


@dataclass(frozen=True)
class Interactive(Interaction):
    """Attention through averages of queries and keys, whose maps the heads exchange; linear in the tokens.

    The heads' exchange is two learned (h, h) matrices, ``mix_query`` and ``mix_key``, which start as the identity.

    Args:
        landmarks: cells per side, or (rows, columns), that queries and keys are averaged over.
        interaction: let the heads exchange their attention. Without it this is the plain decomposition.
        mode: of ``crosshead.ops.interactive.interactive_attention``.
    """

    kind: ClassVar[str] = "imhsa"
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.GRID})
    changes_outputs: ClassVar[str | None] = (
        "it attends through averages of queries and keys, and no choice of weights gives the outputs of full "
        "attention; pass init='paper' and fine-tune"
    )
    no_weight_decay: ClassVar[tuple[str, ...]] = ("mix_query", "mix_key")
    learned: ClassVar[tuple[str, ...]] = ("mix_query", "mix_key")

    landmarks: int | tuple[int, int] = 7
    interaction: bool = True
    mode: Backend = "auto"

    def __post_init__(self) -> None:
        sides = (self.landmarks, self.landmarks) if isinstance(self.landmarks, int) else tuple(self.landmarks)
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(
                f"landmarks must be one or two counts of at least 1 (rows, columns), got {self.landmarks}"
            )
        if self.mode not in get_args(Backend):
            raise ValueError(f"mode must be one of {', '.join(get_args(Backend))}, got {self.mode!r}")
        if not isinstance(self.landmarks, int):
            object.__setattr__(self, "landmarks", sides)

    @property
    def carries(self) -> frozenset[Capability]:
        return frozenset(
            {
                Capability.ROTARY,
                Capability.BIAS,
                Capability.MASK,
                Capability.OUTPUT_NORM,
                Capability.GATE,
                Capability.FIXED_WIDTH,
            }
        )

    def prepare(self, layer: Layer, *, preserve: bool) -> None:
        weight = layer.get_submodule(layer.projection).weight
        for name in ("mix_query", "mix_key"):
            start = torch.eye(layer.num_heads, device=weight.device, dtype=weight.dtype)  # type: ignore[arg-type]
            layer.register_parameter(name, nn.Parameter(start) if self.interaction else None)

    def attend(self, layer: Layer, heads: Heads) -> Tensor:
        assert heads.grid is not None
        out = interactive_attention(
            *_tokens(heads),
            heads.grid,
            dropout_p=heads.dropout_p,
            backend=self.mode,
            **self._operands(layer, heads),
        )
        return out.transpose(1, 2).flatten(2)

    def weights(self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]) -> Tensor:
        return self.factors(layer, heads).effective_map(chosen, queries)

    def signed(self, heads: Heads) -> bool:
        return self.interaction

    def own_weights(
        self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]
    ) -> Tensor:
        """A_Q A_K, not mixed."""
        found = self.factors(layer, heads)
        return found.query[:, chosen][:, :, queries] @ found.key[:, chosen]

    def operands(self, layer: Layer, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
        return heads.split()

    def mixing(self, layer: Layer, heads: Heads) -> LandmarkMixing:
        assert heads.grid is not None
        tokens = heads.q.shape[1]
        rows, columns = check_tokens(tokens, heads.grid, self.landmarks, heads.num_prefix_tokens).cells
        return LandmarkMixing(rows, columns, *_mixes(layer))

    def exchanges(self, layer: Layer) -> bool:
        return self.interaction

    def without_head(self, layer: Layer, head: int) -> AbstractContextManager[None]:
        return columns_at_zero(_mixes(layer), head)

    def factors(self, layer: Layer, heads: Heads) -> AttentionFactors:
        """A_Q and A_K, before and after the heads were mixed; linear in N."""
        q, k, _ = _tokens(heads)
        assert heads.grid is not None
        return attention_factors(q, k, heads.grid, **self._operands(layer, heads))

    def _rotations(self, heads: Heads) -> Rotations | None:
        if heads.rotate is None:
            return None
        if not isinstance(heads.rotate, Rotation):
            raise ValueError(
                "landmarks are rotated to the middle of their cells, and this host does not say by how much; it must "
                "bring a crosshead.layers.rotation.Rotation"
            )
        assert heads.grid is not None
        tokens = heads.q.shape[1]
        geometry = check_tokens(tokens, heads.grid, self.landmarks, heads.num_prefix_tokens)
        return heads.rotate, heads.rotate.of_landmarks(geometry)

    def _operands(self, layer: Layer, heads: Heads) -> dict[str, Any]:
        if heads.is_causal:
            raise ValueError(
                "attention through landmarks takes no mask but one of padding, boolean (B, 1, 1, N): a landmark "
                "averages over queries or keys that causality would tell apart"
            )
        return {
            "landmarks": self.landmarks,
            "mix_query": layer.mix_query,
            "mix_key": layer.mix_key,
            "num_prefix_tokens": heads.num_prefix_tokens,
            "attn_mask": _mask(heads),
            "attn_bias": heads.bias,
            "rotate": self._rotations(heads),
            "scale": heads.scale,
        }


def _tokens(heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, h, N, d), of which landmarks are averages: not yet rotated."""
    return replace(heads, rotate=None).split()


def _mask(heads: Heads) -> Tensor | None:
    """The mask of shifted windows as that of every window, or of an image that of padding."""
    if heads.window_mask is None:
        return heads.attn_mask
    if heads.attn_mask is not None:
        raise ValueError("attention through landmarks takes one mask, got one of windows and one beside it")
    parted = (heads.window_mask == 0).unsqueeze(1)
    return parted.repeat(heads.q.shape[0] // parted.shape[0], 1, 1, 1)


def _mixes(layer: Layer) -> tuple[Tensor | None, Tensor | None]:
    return layer.mix_query, layer.mix_key  # type: ignore[return-value]

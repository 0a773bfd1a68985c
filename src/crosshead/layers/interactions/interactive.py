"""Interactive heads at linear cost, iMHSA (arXiv 2402.17507, section 3): attention through landmarks, heads mixed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from ...ops.interactive import AttentionFactors, Mode, attention_factors, interactive_attention
from ...ops.interactive.arguments import check_tokens
from ...ops.interactive.masked import masked_attention_factors
from ..capabilities import Capability
from ..heads import Heads
from ..layer import Layer
from .base import Interaction, columns_at_zero


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
    mode: Mode = "auto"

    def __post_init__(self) -> None:
        sides = (self.landmarks, self.landmarks) if isinstance(self.landmarks, int) else tuple(self.landmarks)
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(
                f"landmarks must be one or two counts of at least 1 (rows, columns), got {self.landmarks}"
            )
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")
        if not isinstance(self.landmarks, int):
            object.__setattr__(self, "landmarks", sides)

    @property
    def carries(self) -> frozenset[Capability]:
        return frozenset({Capability.OUTPUT_NORM, Capability.GATE})

    def prepare(self, layer: Layer, *, preserve: bool) -> None:
        weight = layer.get_submodule(layer.projection).weight
        for name in ("mix_query", "mix_key"):
            start = torch.eye(layer.num_heads, device=weight.device, dtype=weight.dtype)  # type: ignore[arg-type]
            layer.register_parameter(name, nn.Parameter(start) if self.interaction else None)

    def attend(self, layer: Layer, heads: Heads) -> Tensor:
        q, k, v = heads.split()
        keys = _keys_that_take_part(heads)
        if keys is not None:
            factors = self._masked_factors(layer, heads, q, k, keys, heads.dropout_p)
            out = factors.mixed_query @ (factors.mixed_key @ v)
        else:
            assert heads.grid is not None
            out = interactive_attention(
                q, k, v, heads.grid, dropout_p=heads.dropout_p, mode=self.mode, **self._operands(layer, heads)
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

    def mixings(self, layer: Layer, heads: Heads) -> dict[str, dict[str, Any]]:
        assert heads.grid is not None
        tokens = heads.q.shape[1]
        rows, columns = check_tokens(tokens, heads.grid, self.landmarks, heads.num_prefix_tokens).cells
        mixings = {"mixQuery": layer.mix_query, "mixKey": layer.mix_key}
        return {"landmarks": {"rows": rows, "columns": columns, **mixings}}

    def silenced(self, layer: Layer, head: int) -> AbstractContextManager[None] | None:
        return columns_at_zero([layer.mix_query, layer.mix_key], head) if self.interaction else None  # type: ignore[list-item]

    def factors(self, layer: Layer, heads: Heads) -> AttentionFactors:
        """A_Q and A_K, before and after the heads were mixed; linear in N."""
        q, k, _ = heads.split()
        keys = _keys_that_take_part(heads)
        if keys is not None:
            return self._masked_factors(layer, heads, q, k, keys, 0.0)
        assert heads.grid is not None
        return attention_factors(q, k, heads.grid, **self._operands(layer, heads))

    def _masked_factors(
        self,
        layer: Layer,
        heads: Heads,
        q: Tensor,
        k: Tensor,
        keys: Tensor,
        dropout_p: float,
    ) -> AttentionFactors:
        assert heads.grid is not None
        operands = self._operands(layer, heads)
        return masked_attention_factors(q, k, keys, heads.grid, dropout_p=dropout_p, **operands)

    def _operands(self, layer: Layer, heads: Heads) -> dict[str, Any]:
        return {
            "landmarks": self.landmarks,
            "mix_query": layer.mix_query,
            "mix_key": layer.mix_key,
            "num_prefix_tokens": heads.num_prefix_tokens,
            "scale": heads.scale,
        }


def _keys_that_take_part(heads: Heads) -> Tensor | None:
    """The tokens that a mask of padding leaves, (B or 1, N), or None without a mask."""
    mask = heads.attn_mask
    if mask is None and not heads.is_causal:
        return None
    padding = mask is not None and mask.dtype == torch.bool and mask.dim() == 4 and mask.shape[1:3] == (1, 1)
    if heads.is_causal or mask is None or not padding:
        raise ValueError(
            "attention through landmarks takes no mask but one of padding, boolean (B, 1, 1, N): a landmark averages "
            "over queries or keys that another mask would tell apart"
        )
    return mask[:, 0, 0]

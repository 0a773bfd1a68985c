"""Talking heads (arXiv 2003.02436) in any host: logits and weights of the heads are mixed; they may overlap too."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from torch import Tensor, nn

from ...ops.checks import check_overlap
from ...ops.talking import Backend, talking_heads_weights
from ...ops.talking.fast import packed_attention
from ...ops.talking.math import attention_with
from ..capabilities import Capability
from ..layer import Heads, Layer, Mixing
from .base import Interaction
from .inspectable import weights_apart
from .overlap import (
    OF_OWN_WIDTH,
    OVERLAP_CARRIES,
    add_borrow_gain,
    borrow_gain,
    carry_borrow_gain,
    overlapped_windows,
    scheduled,
    without_head_of,
)


@dataclass(frozen=True)
class Talking(Interaction):
    """Every head's logits, and its weights after the softmax, become learned mixtures of all heads'.

    ``proj_l`` mixes the logits, ``proj_w`` the weights; both are linear layers over the head axis, with timm's names,
    and start as the identity, where the outputs are those of plain attention. In CaiT, whose heads talk already, its
    own serve. MOHSA defines talking heads that overlap; that is what ``overlap`` is for.

    Args:
        overlap: channels that a head borrows from either neighbour, 0 to d, as in ``Overlap``.
        mode: how attention is computed where nothing is added to the logits, see
            ``crosshead.ops.talking.talking_heads_attention``.
    """

    kind: ClassVar[str] = "talking"
    no_weight_decay: ClassVar[tuple[str, ...]] = ("proj_l.weight", "proj_w.weight")

    learned: ClassVar[tuple[str, ...]] = ("borrow_gain", "proj_l", "proj_w")
    cancelled: ClassVar[tuple[str, ...]] = ("proj_l.bias",)

    overlap: int = 0
    mode: Backend = "auto"

    def __post_init__(self) -> None:
        if self.mode not in get_args(Backend):
            raise ValueError(f"mode must be one of {', '.join(get_args(Backend))}, got {self.mode!r}")

    @property
    def carries(self) -> frozenset[Capability]:
        return OVERLAP_CARRIES if self.overlap else OVERLAP_CARRIES | OF_OWN_WIDTH

    @classmethod
    def plan(cls, head_dims: Sequence[int], **options: Any) -> list[Talking]:
        cls.check_options(options)
        overlaps = scheduled(options.pop("overlap", "none"), head_dims)
        return [cls(overlap=o, **options) for o in overlaps]

    def head_width(self, head_dim: int) -> int:
        return head_dim + 2 * check_overlap(self.overlap, head_dim)

    def prepare(self, layer: Layer, *, preserve: bool) -> None:
        check_overlap(self.overlap, layer.key_width())
        add_borrow_gain(layer, self.overlap, preserve)
        weight = layer.get_submodule(layer.projection).weight
        for name in ("proj_l", "proj_w"):
            if isinstance(getattr(layer, name, None), nn.Module):  # CaiT's own
                continue
            mix = nn.Linear(layer.num_heads, layer.num_heads, device=weight.device, dtype=weight.dtype)
            nn.init.eye_(mix.weight)
            nn.init.zeros_(mix.bias)
            layer.add_module(name, mix)

    def carry(self, layer: Layer, before: Layer) -> list[str]:
        lost = super().carry(layer, before)
        carry_borrow_gain(layer, before)
        return [name for name in lost if name != "borrow_gain"]

    def attend(self, layer: Layer, heads: Heads) -> Tensor:
        mixing = _mixing(layer)
        plain = (
            heads.bias is None
            and heads.window_mask is None
            and heads.attn_mask is None
            and not heads.is_causal
        )
        if plain and heads.rotate is None and heads.alike:
            return packed_attention(
                heads.packed(),
                *mixing,
                overlap=self.overlap,
                scale=heads.scale,
                dropout_p=heads.dropout_p,
                borrow_gain=borrow_gain(layer, self.overlap),
                backend=self.mode,
            )
        bias, mask = _apart(heads)
        q, k, v = overlapped_windows(layer, self.overlap, heads)
        out = attention_with(
            q,
            k,
            v,
            *mixing,
            attn_mask=mask,
            attn_bias=bias,
            is_causal=heads.is_causal,
            dropout_p=heads.dropout_p,
            scale=heads.scale,
        )
        return out.flatten(2)

    def weights(self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]) -> Tensor:
        q, k, _ = overlapped_windows(layer, self.overlap, heads)
        bias, mask = _apart(heads)
        weights = talking_heads_weights(
            q,
            k,
            k,
            *_mixing(layer),
            attn_mask=mask,
            attn_bias=bias,
            is_causal=heads.is_causal,
            scale=heads.scale,
            queries=queries,
        )
        return weights[:, list(chosen)]

    def signed(self, heads: Heads) -> bool:
        return True

    def operands(self, layer: Layer, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
        return overlapped_windows(layer, self.overlap, heads)

    def own_weights(
        self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]
    ) -> Tensor:
        return weights_apart(heads, chosen, queries)

    def mixing(self, layer: Layer, heads: Heads) -> Mixing:
        return _mixing(layer)

    def exchanges(self, layer: Layer) -> bool:
        return True

    def without_head(self, layer: Layer, head: int) -> AbstractContextManager[None]:
        return without_head_of(layer, head, self.overlap)


def _mixing(layer: Layer) -> Mixing:
    mixing = Mixing.of(layer)
    assert mixing is not None
    return mixing


def _apart(heads: Heads) -> tuple[Tensor | None, Tensor | None]:
    """The bias, which belongs to a head, and the masks, which part tokens alike for all."""
    if heads.attn_mask is not None and heads.attn_mask.dim() > 2 and heads.attn_mask.shape[-3] != 1:
        raise ValueError(
            "talking heads take a mask that is alike for all heads, (B, 1, N, N) or (N, N), "
            f"got {tuple(heads.attn_mask.shape)}"
        )
    without = Heads(
        heads.tokens,
        heads.q,
        heads.k,
        heads.v,
        heads.scale,
        window_mask=heads.window_mask,
        attn_mask=heads.attn_mask,
    )
    return heads.bias, without.logits_bias()

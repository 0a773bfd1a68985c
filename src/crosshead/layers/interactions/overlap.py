"""Overlapped heads, MOHSA (arXiv 2410.14874, section 3): a head reads channels of its neighbours too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...ops.checks import check_overlap
from ...ops.modes import is_transformed
from ...ops.overlap import overlapped_attention_weights
from ...ops.overlap.fast import packed_attention
from ...ops.overlap.views import (
    overlapped_heads,
    plain_windows,
    rotated_overlapped_heads,
    scale_borrowed,
)
from ...ops.overlap.windowed import packed_window_attention
from ...ops.paths import Conditions, padding
from ...ops.sdpa import fused_attention, plain_attention
from ...ops.talking import fast as talking
from ...ops.talking import talking_heads_weights
from ..capabilities import Capability
from ..layer import Heads, Layer, Mixing
from ..linear import own_weight
from ..schedule import OverlapSchedule, ScheduleSpec
from .base import Interaction
from .inspectable import columns_at_zero, weights_apart


@dataclass(frozen=True)
class Overlap(Interaction):
    """Each head borrows ``overlap`` channels of queries, keys and values from either neighbour.

    Only the projection grows, to h·(d + 2·overlap) inputs. What is preserved starts from zeros: those of the new
    columns, and of learned gains of the borrowed channels of the queries (``borrow_gain``), which the paper has not.

    Args:
        overlap: channels a side, 0 to d.
    """

    kind: ClassVar[str] = "overlap"
    learned: ClassVar[tuple[str, ...]] = ("borrow_gain",)

    overlap: int = 0

    @property
    def carries(self) -> frozenset[Capability]:
        return OVERLAP_CARRIES if self.overlap else OVERLAP_CARRIES | OF_OWN_WIDTH

    @classmethod
    def plan(cls, head_dims: Sequence[int], **options: Any) -> list[Overlap]:
        cls.check_options(options)
        return [cls(overlap=o) for o in scheduled(options.get("overlap", "index"), head_dims)]

    @classmethod
    def example(cls) -> Overlap:
        return cls(1)

    def head_width(self, head_dim: int) -> int:
        return head_dim + 2 * check_overlap(self.overlap, head_dim)

    def prepare(self, layer: Layer, *, preserve: bool) -> None:
        check_overlap(self.overlap, layer.key_width())
        add_borrow_gain(layer, self.overlap, preserve)

    def carry(self, layer: Layer, before: Layer) -> list[str]:
        carry_borrow_gain(layer, before)
        return []

    def attend(self, layer: Layer, heads: Heads) -> Tensor:
        gain = borrow_gain(layer, self.overlap)
        if heads.mixing is not None:
            return talking.packed_attention(
                heads.packed(),
                *heads.mixing,
                overlap=self.overlap,
                scale=heads.scale,
                dropout_p=heads.dropout_p,
                borrow_gain=gain,
            )
        shared: dict[str, Any] = dict(scale=heads.scale, dropout_p=heads.dropout_p)
        apart = self.overlap == 0 and heads.qkv is None  # nothing is borrowed: there is no need to pack them
        if heads.rotate is not None or apart or not heads.is_simple:
            width = heads.v.shape[-1] + 2 * self.overlap
            tail = padding(Conditions.of(heads.q), width) if heads.alike and not apart else 0
            q, k, v = heads.split() if apart else overlapped_windows(layer, self.overlap, heads, tail)
            bias = heads.logits_bias()
            bias = bias if bias is None or bias.dtype == torch.bool else bias.to(q.dtype)
            attend = plain_attention if is_transformed(q, k, v, bias) else fused_attention
            out = attend(q, k, v, bias, is_causal=heads.is_causal, **shared)
            return out[..., :width].transpose(1, 2).flatten(2)
        if heads.bias is not None and heads.attn_mask is None:
            return packed_window_attention(
                heads.packed(), self.overlap, heads.bias, mask=heads.window_mask, borrow_gain=gain, **shared
            )
        return packed_attention(
            heads.packed(),
            self.overlap,
            attn_mask=heads.logits_bias(),
            is_causal=heads.is_causal,
            borrow_gain=gain,
            **shared,
        )

    def weights(self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]) -> Tensor:
        q, k, v = overlapped_windows(layer, self.overlap, heads)
        if heads.mixing is not None:
            weights = talking_heads_weights(q, k, v, *heads.mixing, scale=heads.scale, queries=queries)
        else:
            weights = overlapped_attention_weights(
                q, k, k, 0, **heads.added(), scale=heads.scale, queries=queries
            )
        return weights[:, list(chosen)]

    def operands(self, layer: Layer, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
        return overlapped_windows(layer, self.overlap, heads)

    def own_weights(
        self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]
    ) -> Tensor:
        return weights_apart(heads, chosen, queries)

    def signed(self, heads: Heads) -> bool:
        return heads.mixing is not None

    def mixing(self, layer: Layer, heads: Heads) -> Mixing | None:
        return heads.mixing

    def exchanges(self, layer: Layer) -> bool:
        return bool(self.overlap or Mixing.of(layer))

    def without_head(self, layer: Layer, head: int) -> AbstractContextManager[None]:
        return without_head_of(layer, head, self.overlap)


OVERLAP_CARRIES = frozenset(
    {
        Capability.ROTARY,
        Capability.BIAS,
        Capability.MASK,
        Capability.MIXING,
        Capability.QUERY_BIAS,
        Capability.OTHER_KEYS,
        Capability.VALUE_WIDTH,
    }
)
# With the borrowed channels the heads' output is wider than an output norm, a gate or a residual.
OF_OWN_WIDTH = frozenset(
    {Capability.OUTPUT_NORM, Capability.GATE, Capability.FIXED_WIDTH, Capability.CHANNELS}
)


def scheduled(spec: ScheduleSpec, head_dims: Sequence[int]) -> list[int]:
    """The overlap of every block."""
    return OverlapSchedule.parse(spec).overlaps(len(head_dims), head_dims)


def add_borrow_gain(layer: Layer, overlap: int, learn: bool) -> None:
    """Gives ``layer`` the gains of its borrowed channels, which start at 0, where they are to be learned."""
    # With one head there is nothing to borrow and so nothing to learn. One axis, so that optimizers that spare
    # 1-d parameters the weight decay spare it too: decay would pull the heads apart.
    gains = layer.num_heads * 2 * overlap if learn and layer.num_heads > 1 else 0
    weight = layer.get_submodule(layer.projection).weight
    fresh = torch.zeros(gains, device=weight.device, dtype=weight.dtype)  # type: ignore[arg-type]
    layer.register_parameter("borrow_gain", nn.Parameter(fresh) if gains else None)


@torch.no_grad()
def carry_borrow_gain(layer: Layer, before: Layer) -> None:
    """What was learned of the channels that both overlaps borrow goes on; without gains they were borrowed whole."""
    old, new = before.interaction.overlap, layer.interaction.overlap
    known = borrow_gain(before, old)
    if known is None and layer.borrow_gain is None:
        return
    if layer.borrow_gain is None:  # new channels as in the paper, those of before as they were learned
        add_borrow_gain(layer, new, True)
        if layer.borrow_gain is not None:
            layer.borrow_gain.fill_(1.0)
    gain = borrow_gain(layer, new)
    if gain is not None:
        known = gain.new_ones(layer.num_heads, 2 * old) if known is None else known
        both = min(old, new)
        gain[:, new - both : new + both] = known[:, old - both : old + both]


def borrow_gain(layer: Layer, overlap: int) -> Tensor | None:
    """The gains (h, 2·overlap) of ``layer``, or None for the paper's operator."""
    gain = layer.borrow_gain
    return None if gain is None else gain.view(layer.num_heads, 2 * overlap)  # type: ignore


def overlapped_windows(
    layer: Layer, overlap: int, heads: Heads, tail: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Q', K', V' (B, h, N, d + 2·overlap + tail), rotated where the host does so, the queries with their gains."""
    if not heads.alike:
        assert heads.rotate is None and tail == 0
        q, k, v = (plain_windows(x, overlap).transpose(1, 2) for x in (heads.q, heads.k, heads.v))
    elif heads.rotate is None:
        q, k, v = overlapped_heads(heads.packed(), overlap, tail)
    else:
        q, k, v = rotated_overlapped_heads(heads.packed(), overlap, heads.rotate, tail)
    return scale_borrowed(q, borrow_gain(layer, overlap), heads.q.shape[-1], overlap, tail), k, v


@contextmanager
def without_head_of(layer: Layer, head: int, overlap: int) -> Iterator[None]:
    """While the context lasts, ``head`` lends its neighbours nothing, and has no share in any mixing."""
    mixing: Any = [getattr(layer, name) for name in ("proj_l", "proj_w")] if Mixing.of(layer) else []
    with ExitStack() as parts:
        if overlap:
            parts.enter_context(_read_without(layer, head))
        parts.enter_context(columns_at_zero([own_weight(each) for each in mixing], head))
        yield


@contextmanager
def _read_without(layer: Layer, head: int) -> Iterator[None]:
    """While the context lasts, queries, keys and values of ``head`` are 0, so that its neighbours borrow nothing."""
    read = layer.read

    def without(*args: Any, **kwargs: Any) -> Heads:
        heads = read(*args, **kwargs)
        kept = torch.ones(layer.num_heads, 1, dtype=heads.v.dtype, device=heads.v.device)
        kept[head] = 0
        packed = None if heads.qkv is None else heads.qkv * kept
        return replace(heads, q=heads.q * kept, k=heads.k * kept, v=heads.v * kept, qkv=packed)

    layer.read = without  # type: ignore[method-assign]
    try:
        yield
    finally:
        del layer.read

"""Re-attention (DeepViT, arXiv 2103.11886): the maps of the heads are mixed, and normalised over the batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...ops.private_torch import backward_is_running
from ...ops.reattention import Statistics, reattention, reattention_weights
from ..capabilities import Capability
from ..layer import Heads, Layer
from ..linear import own_weight, weight_and_bias
from .base import Interaction
from .inspectable import MapMixing, columns_at_zero, weights_apart


@dataclass(frozen=True)
class Reattention(Interaction):
    """Every head's map becomes a learned mixture of all heads' maps, normalised as batch norm does its channels.

    ``reattention_mix`` is Θ, a linear layer over the head axis, ``reattention_norm`` a ``BatchNorm2d`` of the heads:
    of its batch in training, of running statistics in evaluation, of those too where it is frozen (``eval()``).

    Args:
        momentum: of the running statistics; None averages them over all steps.
    """

    kind: ClassVar[str] = "reattention"
    changes_outputs: ClassVar[str | None] = (
        "the norm of the mixed maps gives other outputs whatever its weights; use init='paper' and train"
    )
    learned: ClassVar[tuple[str, ...]] = ("reattention_mix", "reattention_norm")
    cancelled: ClassVar[tuple[str, ...]] = ("reattention_mix.bias",)

    momentum: float | None = 0.1

    def __post_init__(self) -> None:
        number = isinstance(self.momentum, float | int)
        if self.momentum is not None and not (number and 0.0 < self.momentum <= 1.0):
            raise ValueError(f"momentum must lie in (0, 1] or be None, got {self.momentum!r}")

    @property
    def carries(self) -> frozenset[Capability]:
        # No mask: the norm gives a hidden key the weight of a mean one.
        return frozenset(
            {
                Capability.ROTARY,
                Capability.BIAS,
                Capability.OUTPUT_NORM,
                Capability.GATE,
                Capability.QUERY_BIAS,
                Capability.OTHER_KEYS,
                Capability.FIXED_WIDTH,
                Capability.CHANNELS,
            }
        )

    def prepare(self, layer: Layer, *, preserve: bool) -> None:
        weight = layer.get_submodule(layer.projection).weight
        factory: Any = {"device": weight.device, "dtype": weight.dtype}
        layer.add_module("reattention_mix", nn.Linear(layer.num_heads, layer.num_heads, **factory))
        norm = nn.BatchNorm2d(layer.num_heads, momentum=self.momentum, **factory)
        layer.add_module("reattention_norm", norm)

    def carry(self, layer: Layer, before: Layer) -> list[str]:
        lost = super().carry(layer, before)
        norm: Any = copy.copy(layer.reattention_norm)  # the same statistics and weights
        norm.momentum = self.momentum
        layer.add_module("reattention_norm", norm)
        return lost

    def attend(self, layer: Layer, heads: Heads) -> Tensor:
        norm: Any = layer.reattention_norm
        statistics = _given(norm)
        out, used = reattention(
            *heads.split(), **_operands(layer, heads), statistics=statistics, dropout_p=heads.dropout_p
        )
        if statistics is None and norm.track_running_stats:
            _follow(norm, used, out.shape[0] * out.shape[2] * heads.k.shape[1])
        return out.transpose(1, 2).flatten(2)

    def weights(self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]) -> Tensor:
        operands = _operands(layer, heads)
        q, k, v = heads.split()
        statistics = _given(layer.reattention_norm)  # type: ignore[arg-type]
        if statistics is None:
            statistics = reattention(q, k, v, **operands)[1]
        rows = reattention_weights(q, k, v, **operands, statistics=statistics, queries=queries)
        return rows[:, list(chosen)]

    def signed(self, heads: Heads) -> bool:
        return True

    def mixing(self, layer: Layer, heads: Heads) -> MapMixing:
        operands = _operands(layer, heads)
        statistics = _given(layer.reattention_norm)  # type: ignore[arg-type]
        if statistics is None:
            statistics = reattention(*heads.split(), **operands)[1]
        gain = torch.rsqrt(statistics.variance + operands["eps"])
        shift = -statistics.mean * gain
        if operands["norm_weight"] is not None:
            gain, shift = (
                gain * operands["norm_weight"],
                shift * operands["norm_weight"] + operands["norm_bias"],
            )
        if operands["mix_bias"] is not None:
            shift = shift + gain * operands["mix_bias"]
        return MapMixing(operands["mix"].flatten(1), gain, shift)

    def operands(self, layer: Layer, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
        return heads.split()

    def own_weights(
        self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]
    ) -> Tensor:
        return weights_apart(heads, chosen, queries)

    def exchanges(self, layer: Layer) -> bool:
        return True

    def without_head(self, layer: Layer, head: int) -> AbstractContextManager[None]:
        return columns_at_zero([own_weight(layer.reattention_mix)], head)  # type: ignore[arg-type]


def _operands(layer: Layer, heads: Heads) -> dict[str, Any]:
    if heads.attn_mask is not None or heads.is_causal:
        raise ValueError(
            "re-attention takes no mask: its norm gives a hidden key the weight of a mean one; pass only the tokens "
            "that take part, or use another interaction"
        )
    mix, mix_bias = weight_and_bias(layer.reattention_mix)  # type: ignore[arg-type]
    norm: Any = layer.reattention_norm
    return {
        "mix": mix,
        "mix_bias": mix_bias,
        "norm_weight": norm.weight,
        "norm_bias": norm.bias,
        "eps": norm.eps,
        "attn_bias": heads.bias,
        "scale": heads.scale,
    }


def _given(norm: nn.BatchNorm2d) -> Statistics | None:
    """The running statistics where the norm goes by them, or None: those of the batch."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        if isinstance(norm, nn.SyncBatchNorm):
            raise ValueError(
                "re-attention takes the statistics of each process' own batch; leave reattention_norm out of "
                "convert_sync_batchnorm"
            )
        return None
    return Statistics(norm.running_mean, norm.running_var)


@torch.no_grad()
def _follow(norm: nn.BatchNorm2d, used: Statistics, entries: int) -> None:
    """Moves the running statistics towards a batch's, as batch norm does; the variance as that of all, unbiased."""
    # Under gradient checkpointing the batch comes again in the backward pass, and is not to count twice.
    again = not torch.compiler.is_compiling() and backward_is_running()
    if again or entries < 2 or norm.running_mean is None or norm.running_var is None:
        return
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    momentum: Any = norm.momentum
    if momentum is None:
        momentum = 1.0 / float(norm.num_batches_tracked)  # type: ignore[arg-type]
    for running, new in (
        (norm.running_mean, used.mean),
        (norm.running_var, used.variance * (entries / (entries - 1))),
    ):
        running.add_(momentum * (new.to(running.dtype) - running))

"""Knocking heads (arXiv 2510.23052): queries, keys and values of all heads pass through matrices that they share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.knocking import fold, gated_values
from ...ops.knocking.fast import packed_knock
from ...ops.private_torch import hooks_of
from ..capabilities import Capability
from ..layer import Heads, Layer, Mixing
from .base import Interaction
from .inspectable import weights_apart
from .overlap import Overlap

Form = Literal["linear", "gated"]
_PLAIN = Overlap(0)


@dataclass(frozen=True)
class Knocking(Interaction):
    """One matrix (d, d) for the queries of all heads, one for the keys, one for the values; attention stays as it is.

    They start as the identity. In the linear form (``knock``) a host's packed projection takes them in, in training
    too: the product is one of weights, before any norm or rotation of queries and keys. Where there is no such
    projection, or one that is more than a linear layer, they act on what the host hands over, after its norms.

    Args:
        form: ``linear``; or ``gated``: the values alone, through a gated layer (``knock_up``, ``knock_gate``,
            ``knock_down``).
    """

    kind: ClassVar[str] = "knocking"
    learned: ClassVar[tuple[str, ...]] = ("knock", "knock_up", "knock_gate", "knock_down")
    # Decay pulls towards 0, and the heads apart are the identity.
    no_weight_decay: ClassVar[tuple[str, ...]] = ("knock", "knock_up", "knock_gate", "knock_down")

    form: Form = "linear"

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"form must be one of {', '.join(get_args(Form))}, got {self.form!r}")

    @property
    def carries(self) -> frozenset[Capability]:
        # One matrix (d, d) for queries, keys and values alike, over a head's channels.
        return _PLAIN.carries - {Capability.VALUE_WIDTH, Capability.CHANNELS}

    def prepare(self, layer: Layer, *, preserve: bool) -> None:
        _PLAIN.prepare(layer, preserve=False)
        weight = layer.get_submodule(layer.projection).weight
        same = torch.eye(layer.head_dim, device=weight.device, dtype=weight.dtype)  # type: ignore[arg-type]
        start = {"knock_up": same, "knock_gate": torch.zeros_like(same), "knock_down": same}
        if self.form == "linear":
            start = {"knock": same.repeat(3, 1, 1)}
        for name in self.learned:
            layer.register_parameter(name, nn.Parameter(start[name].clone()) if name in start else None)

    def project(self, layer: Layer, linear: nn.Module, x: Tensor) -> Tensor:
        if self.form == "gated":
            out: Tensor = linear(x)
            return out
        matrices: Any = layer.knock
        if _is_plain(linear):
            return F.linear(x, *fold(linear.weight, linear.bias, matrices))  # type: ignore[arg-type]
        packed = linear(x)
        heads = packed.unflatten(-1, (3, layer.num_heads, layer.head_dim))
        return packed_knock(heads, matrices.to(packed.dtype)).flatten(2)

    def attend(self, layer: Layer, heads: Heads) -> Tensor:
        return _PLAIN.attend(layer, self._knocked(layer, heads))

    def weights(self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]) -> Tensor:
        return _PLAIN.weights(layer, self._knocked(layer, heads), chosen, queries)

    def operands(self, layer: Layer, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
        return self._knocked(layer, heads).split()

    def own_weights(
        self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]
    ) -> Tensor:
        return weights_apart(heads, chosen, queries)

    def signed(self, heads: Heads) -> bool:
        return _PLAIN.signed(heads)

    def mixing(self, layer: Layer, heads: Heads) -> Mixing | None:
        return _PLAIN.mixing(layer, heads)

    # The matrices are the same for all heads, which give each other nothing.
    def exchanges(self, layer: Layer) -> bool:
        return _PLAIN.exchanges(layer)

    def without_head(self, layer: Layer, head: int) -> AbstractContextManager[None]:
        return _PLAIN.without_head(layer, head)

    def _knocked(self, layer: Any, heads: Heads) -> Heads:
        """The heads after the matrices, unless ``project`` has seen to them."""
        if self.form == "gated":
            weights = (w.to(heads.v.dtype) for w in (layer.knock_up, layer.knock_gate, layer.knock_down))
            return replace(heads, v=gated_values(heads.v, *weights), qkv=None)
        if layer.in_projection is not None:
            return heads
        q, k, v = (
            x @ matrix.to(x.dtype) for x, matrix in zip((heads.q, heads.k, heads.v), layer.knock, strict=True)
        )
        return replace(heads, q=q, k=k, v=v, qkv=None)


@torch.no_grad()
def fold_knocking(model: nn.Module) -> list[str]:
    """Puts back a model's own attention where heads knock, with their matrices inside its weights; outputs stay.

    For inference, or to hand the model to those who know nothing of interactions (arXiv 2510.23052, equation 8).

    Returns:
        The paths of the modules that were put back.

    Raises:
        ValueError: where a matrix can't be part of a weight: the gated form, a host without one projection, a
            projection that is more than a linear layer. The model stays as it is.
    """
    folded = {}
    for path, layer in model.named_modules():
        if isinstance(layer, Layer) and isinstance(layer.interaction, Knocking):
            folded[path] = _folded(path, layer, layer.interaction)
    if not folded:
        raise ValueError(f"{type(model).__name__} holds no knocking heads to fold")
    for path, attn in folded.items():
        model.set_submodule(path, attn)
    return list(folded)


def _folded(path: str, layer: Any, interaction: Knocking) -> nn.Module:
    linear: Any = layer.get_submodule(layer.in_projection) if layer.in_projection else None
    if interaction.form != "linear" or not _is_plain(linear):
        what = "the gated form" if interaction.form != "linear" else "matrices without one plain nn.Linear"
        raise ValueError(f"{path or 'the model'}: {what} can't be folded into a projection")
    weight, bias = fold(linear.weight, linear.bias, layer.knock)
    new = nn.Linear(linear.in_features, linear.out_features, bias is not None, weight.device, weight.dtype)
    new.weight.copy_(weight)
    if bias is not None:
        new.bias.copy_(bias)
    attn: nn.Module = layer.restored()
    setattr(attn, layer.in_projection, new.train(linear.training))
    return attn


def _is_plain(linear: nn.Module | None) -> bool:
    """A linear layer, and nothing but that."""
    return type(linear) is nn.Linear and not _is_watched(linear)


def _is_watched(linear: nn.Module) -> bool:
    """Whether somebody waits for a call of the layer itself, or computes its weights."""
    return bool(hooks_of(linear)) or hasattr(linear, "parametrizations")

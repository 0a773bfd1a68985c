"""Dynamically composable heads, DCMHA (arXiv 2405.08553): the tokens say how their heads are mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...ops.dcmha import composed_attention, composed_attention_weights
from ...ops.dcmha.fast import mixing_matrices
from ..capabilities import Capability
from ..layer import Heads, Layer
from .base import Interaction
from .inspectable import TokenMixing, weights_apart


@dataclass(frozen=True)
class Composed(Interaction):
    """Every query and every key brings matrices that mix the heads' logits, and their weights after the softmax.

    What is learned, all of it beside the identity: ``compose_hidden`` and ``compose_factors``, the two layers that the
    factors of the matrices come from; ``compose_diagonal``, their diagonals; ``compose_pre`` and ``compose_post``, the
    part that is the same for all tokens.

    Args:
        rank: factors R of a matrix, 2 as the authors have it.
        hidden: width K of the first layer, for each of the four matrices of a token; 2·R·h unless given.
        static: whether there is a part that is the same for all tokens.
    """

    kind: ClassVar[str] = "dcmha"
    learned: ClassVar[tuple[str, ...]] = (
        "compose_hidden",
        "compose_factors",
        "compose_diagonal",
        "compose_pre",
        "compose_post",
    )

    rank: int = 2
    hidden: int | None = None
    static: bool = True

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank!r}")
        if self.hidden is not None and (type(self.hidden) is not int or self.hidden < 2):
            raise ValueError(f"hidden must be at least 2, got {self.hidden!r}")

    @property
    def carries(self) -> frozenset[Capability]:
        # Every query and every key is a token that brings its matrices.
        return frozenset(Capability) - {
            Capability.GRID,
            Capability.MIXING,
            Capability.OTHER_KEYS,
            Capability.VALUE_WIDTH,
            Capability.CHANNELS,
        }

    def prepare(self, layer: Layer, *, preserve: bool) -> None:
        weight = layer.get_submodule(layer.projection).weight
        factory: Any = {"device": weight.device, "dtype": weight.dtype}
        heads, dim, rank = layer.num_heads, layer.token_width(), self.rank
        hidden = 2 * rank * heads if self.hidden is None else self.hidden
        # The authors' starting values: normal, the factors small.
        sizes = {
            "compose_hidden": ((4 * hidden, dim), (2 / (dim + hidden)) ** 0.5),
            "compose_factors": ((4, hidden, 2 * rank, heads), hidden**-0.5 * 2 / (heads + rank) * 0.01),
            "compose_diagonal": ((4 * heads, dim), (2 / (dim + heads)) ** 0.5 * 0.005),
            "compose_pre": ((heads, heads), heads**-0.5 * 0.1),
            "compose_post": ((heads, heads), heads**-0.5 * 0.1),
        }
        for name, (size, std) in sizes.items():
            absent = not self.static and name in ("compose_pre", "compose_post")
            drawn = torch.empty(size, **factory).normal_(std=std)
            layer.register_parameter(name, None if absent else nn.Parameter(drawn))
        if preserve:
            _silence(layer, hidden, rank)

    def attend(self, layer: Layer, heads: Heads) -> Tensor:
        out = composed_attention(
            *heads.split(), heads.tokens, **_operands(layer, heads), dropout_p=heads.dropout_p
        )
        return out.transpose(1, 2).flatten(2)

    def weights(self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]) -> Tensor:
        rows = composed_attention_weights(
            *heads.split(), heads.tokens, **_operands(layer, heads), queries=queries
        )
        return rows[:, list(chosen)]

    def signed(self, heads: Heads) -> bool:
        return True

    def operands(self, layer: Layer, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
        return heads.split()

    def own_weights(
        self, layer: Layer, heads: Heads, chosen: Sequence[int], queries: Sequence[int]
    ) -> Tensor:
        return weights_apart(heads, chosen, queries)

    def mixing(self, layer: Layer, heads: Heads) -> TokenMixing:
        names = ("hidden_weight", "factor_weight", "diagonal_weight", "pre_weight", "post_weight")
        operands = _operands(layer, heads)
        return TokenMixing(mixing_matrices(heads.tokens, *(operands[name] for name in names)))

    def exchanges(self, layer: Layer) -> bool:
        return True

    def without_head(self, layer: Layer, head: int) -> AbstractContextManager[None]:
        return _without_source(layer, head)


@contextmanager
def _without_source(layer: Layer, head: int) -> Iterator[None]:
    """While the context lasts, ``head`` is left out of what is composed, before and after the softmax."""
    sources = torch.ones(layer.num_heads)
    sources[head] = 0
    layer.compose_sources = sources.to(layer.compose_diagonal.device)  # type: ignore[arg-type]
    try:
        yield
    finally:
        del layer.compose_sources


@torch.no_grad()
def _silence(layer: Any, hidden: int, rank: int) -> None:
    """Makes every mixing the identity, with a gradient for each parameter.

    A factor that writes times one that reads: with both at 0 neither would ever learn. So the half of the hidden layer
    that the writing factors hear is silent itself (its weights are 0, those behind it are not), and the other half
    speaks, to the reading factors alone.
    """
    layer.compose_hidden.view(4, hidden, -1)[:, hidden // 2 :] = 0
    layer.compose_factors[:, : hidden // 2, rank:] = 0
    for name in ("compose_diagonal", "compose_pre", "compose_post"):
        if getattr(layer, name) is not None:
            getattr(layer, name).zero_()


def _operands(layer: Any, heads: Heads) -> dict[str, Any]:
    mask = replace(heads, bias=None).logits_bias()
    if heads.is_causal:
        tokens = heads.q.shape[1]
        before = torch.ones(tokens, tokens, dtype=torch.bool, device=heads.q.device).tril()
        if mask is None or mask.dtype == torch.bool:
            mask = before if mask is None else mask & before
        else:
            mask = mask.masked_fill(~before, -torch.inf)
    return {
        "hidden_weight": layer.compose_hidden,
        "factor_weight": layer.compose_factors,
        "diagonal_weight": layer.compose_diagonal,
        "pre_weight": layer.compose_pre,
        "post_weight": layer.compose_post,
        "attn_bias": heads.bias,
        "attn_mask": mask,
        "scale": heads.scale,
        "sources": getattr(layer, "compose_sources", None),
    }

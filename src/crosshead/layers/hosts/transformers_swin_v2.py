"""transformers' Swin v2, which is written as a self-attention and its output, apart from their common interface."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..capabilities import Capability
from ..qkv import Heads
from .parts import weights_beside
from .transformers import TransformersHost


class SwinV2OfTransformers(TransformersHost):
    """``Swinv2Attention`` of transformers whose heads interact; (images · windows, N, dim) -> (the same, [weights])."""

    projection = "output.dense"
    self: Any  # theirs, which makes queries, keys and values
    output: Any

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.BIAS, Capability.MASK})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        inner: Any = attn.self
        return inner.num_attention_heads, inner.attention_head_size

    def read(  # type: ignore[override]
        self, x: Tensor, attention_mask: Tensor | None = None, output_attentions: bool | None = False
    ) -> Heads:
        inner = self.self
        q, k, v = (
            linear(x).unflatten(-1, (self.num_heads, self.head_dim))
            for linear in (inner.query, inner.key, inner.value)
        )
        scale = torch.clamp(inner.logit_scale, max=math.log(1.0 / 0.01)).exp()
        return Heads(
            x,
            F.normalize(q, dim=-1) * scale.view(-1, 1),
            F.normalize(k, dim=-1),
            v,
            1.0,
            bias=self._position_bias(),
            window_mask=None if attention_mask is None else 2 * attention_mask,  # they add it twice
            dropout_p=inner.dropout.p if self.training else 0.0,
            weights="each" if output_attentions else None,
        )

    def write(self, out: Tensor, heads: Heads) -> tuple[Tensor, ...]:  # type: ignore[override]
        found = self.output(out, heads.tokens)
        weights = weights_beside(self, heads)
        return (found,) if weights is None else (found, weights)

    def _position_bias(self) -> Tensor:
        inner = self.self
        area = math.prod(inner.window_size)
        table = inner.continuous_position_bias_mlp(inner.relative_coords_table).view(-1, self.num_heads)
        bias = table[inner.relative_position_index.view(-1)].view(area, area, -1)
        return 16 * torch.sigmoid(bias.permute(2, 0, 1).contiguous())

"""Swin v2's window attention: cosine logits under a learned scale for each head, a bias from an MLP over offsets."""

import math

import torch
import torch.nn.functional as F
from timm.models.swin_transformer_v2 import WindowAttention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads
from .parts import packed_with_biases


class WindowV2Host(InteractingAttention, WindowAttention):
    """``timm.models.swin_transformer_v2.WindowAttention`` whose heads interact; (images · windows, N, dim) in and out.

    Queries and keys are normalised over a head's own channels, and the head's scale is part of its queries: what a
    neighbour borrows is borrowed so.
    """

    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS, Capability.MASK})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.dim // attn.num_heads  # type: ignore

    def read(self, x: Tensor, mask: Tensor | None = None) -> Heads:
        qkv = packed_with_biases(self, x).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.unbind(2)
        scale = torch.clamp(self.logit_scale, max=math.log(1.0 / 0.01)).exp()
        return Heads(
            x,
            F.normalize(q, dim=-1) * scale.view(-1, 1),
            F.normalize(k, dim=-1),
            v,
            1.0,
            bias=self._position_bias(),
            window_mask=mask,
            grid=(self.window_size[0], self.window_size[1]),
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

    def _position_bias(self) -> Tensor:
        area = self.window_size[0] * self.window_size[1]
        table = self.cpb_mlp(self.relative_coords_table).view(-1, self.num_heads)
        bias = table[self.relative_position_index.view(-1)].view(area, area, -1)  # type: ignore[operator]
        return 16 * torch.sigmoid(bias.permute(2, 0, 1).contiguous())

"""Swin v2 as Christoph Reich wrote it: cosine logits under a learned scale, a bias from an MLP over offsets."""

import math

import torch
import torch.nn.functional as F
from timm.models.swin_transformer_v2_cr import WindowMultiHeadAttention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class SwinCrHost(InteractingAttention, WindowMultiHeadAttention):
    """``timm.models.swin_transformer_v2_cr.WindowMultiHeadAttention`` whose heads interact; (images · windows, N, dim)
    in and out. A head's scale is part of its queries, as in ``WindowV2Host``."""

    in_projection = "qkv"
    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS, Capability.MASK})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.in_features // attn.num_heads  # type: ignore

    def read(self, x: Tensor, mask: Tensor | None = None) -> Heads:
        q, k, v = self.packed(x).unbind(2)
        scale = torch.clamp(self.logit_scale, max=math.log(1.0 / 0.01)).exp()
        return Heads(
            x,
            F.normalize(q, dim=-1) * scale.view(-1, 1),
            F.normalize(k, dim=-1),
            v,
            1.0,
            bias=self._relative_positional_encodings().squeeze(0),
            window_mask=mask,
            grid=(self.window_size[0], self.window_size[1]),
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

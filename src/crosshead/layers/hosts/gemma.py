"""Gemma 4's attention of pictures: norms of queries, keys and values, rotary positions of rows and columns apart."""

from functools import partial

import torch
from timm.models.gemma4_vit import Gemma4Attention, apply_multidimensional_rope
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..layer import Heads
from ..rotation import Rotation


class GemmaHost(InteractingAttention, Gemma4Attention):
    """``timm.models.gemma4_vit.Gemma4Attention`` whose heads interact; (B, N, dim) in and out."""

    projection = "o_proj.linear"
    entrance = "o_proj"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.ROTARY, Capability.MASK})  # patches that fill a batch up are masked

    def read(self, x: Tensor, rope_cos: Tensor, rope_sin: Tensor, attn_mask: Tensor | None = None) -> Heads:
        q, k, v = (
            norm(linear(x).unflatten(-1, (-1, self.head_dim)))
            for linear, norm in (
                (self.q_proj, self.q_norm),
                (self.k_proj, self.k_norm),
                (self.v_proj, self.v_norm),
            )
        )
        if self.num_kv_groups > 1:
            k, v = (part.repeat_interleave(self.num_kv_groups, dim=2) for part in (k, v))
        return Heads(
            x,
            q,
            k,
            v,
            1.0,
            rotate=Rotation(_turned, torch.cat([rope_sin, rope_cos], dim=-1)),
            attn_mask=attn_mask,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        found: Tensor = self.proj_drop(self.o_proj(out))
        return found


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """Queries or keys (B, h, N, d), turned by angles (B, N, 2·d), sines and cosines."""
    sines, cosines = angles.chunk(2, dim=-1)
    turn = partial(apply_multidimensional_rope, ndim=2, unsqueeze_dim=1)
    found: Tensor = turn(x, cosines, sines)
    return found


def host_for(attention: type[nn.Module]) -> type[GemmaHost] | None:
    """The host of a class of timm's ``gemma4_vit``, which timm has not always had, or None."""
    return GemmaHost if attention is Gemma4Attention else None

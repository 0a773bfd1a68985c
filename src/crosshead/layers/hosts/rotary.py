"""Rotary positions: timm's ``AttentionRope`` (DINOv3, PE) and EVA's attention."""

from timm.layers import AttentionRope
from timm.models import eva
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..layer import Heads
from .parts import packed_with_biases, rotation
from .plain import is_normed, norm_and_gate, output_brings


class RotaryHost(InteractingAttention, AttentionRope):
    """``timm.layers.AttentionRope`` whose heads interact; (B, N, dim) -> (B, N, dim_out).

    One projection or three, and perhaps fewer heads of keys and values.
    """

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.ROTARY}) | output_brings(attn)

    def read(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Heads:
        if self.qkv is not None:
            qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
            q, k, v = qkv.unbind(2)
        else:
            qkv = None
            q, k, v = (
                projection(x).unflatten(-1, (-1, self.head_dim))
                for projection in (self.q_proj, self.k_proj, self.v_proj)
            )
        q, k = self.q_norm(q), self.k_norm(k)
        groups = getattr(self, "num_kv_groups", 1)  # timm has them from 1.0.28 on
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
        return Heads(
            x,
            q,
            k,
            v,
            self.scale,
            qkv=None if is_normed(self) else qkv,
            rotate=rotation(self, rope),
            attn_mask=attn_mask,
            is_causal=is_causal,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        return super().write(norm_and_gate(self, out, heads.tokens), heads)


class EvaHost(InteractingAttention, eva.EvaAttention):
    """``timm.models.eva.EvaAttention`` whose heads interact; (B, N, dim) in and out.

    Biases of queries and values apart, an optional norm and gate of the output.
    """

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.ROTARY}) | output_brings(attn)

    def read(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Heads:
        if self.qkv is not None:
            qkv = packed_with_biases(self, x).unflatten(-1, (3, self.num_heads, self.head_dim))
            q, k, v = qkv.unbind(2)
        else:
            qkv = None
            q, k, v = (
                projection(x).unflatten(-1, (self.num_heads, self.head_dim))
                for projection in (self.q_proj, self.k_proj, self.v_proj)
            )
        return Heads(
            x,
            self.q_norm(q),
            self.k_norm(k),
            v,
            self.scale,
            qkv=None if is_normed(self) else qkv,
            rotate=rotation(self, rope),
            attn_mask=attn_mask,
            is_causal=is_causal,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        return super().write(norm_and_gate(self, out, heads.tokens), heads)

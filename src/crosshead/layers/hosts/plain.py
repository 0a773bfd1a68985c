"""timm's ``Attention``: one packed projection, norms of queries and keys, an optional norm and gate of the output."""

from timm.layers import Attention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads
from .parts import is_normed, norm_and_gate, output_brings


class PlainHost(InteractingAttention, Attention):
    """``timm.layers.Attention`` whose heads interact; (B, N, dim) -> (B, N, dim_out)."""

    in_projection = "qkv"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID}) | output_brings(attn)

    def read(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Heads:
        qkv = self.packed(x)
        q, k, v = qkv.unbind(2)
        return Heads(
            x,
            self.q_norm(q),
            self.k_norm(k),
            v,
            self.scale,
            qkv=None if is_normed(self) else qkv,
            attn_mask=attn_mask,
            is_causal=is_causal,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        return super().write(norm_and_gate(self, out, heads.tokens), heads)

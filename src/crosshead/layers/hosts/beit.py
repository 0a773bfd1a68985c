"""BEiT's attention: a relative position bias that knows the class token, biases of queries and values apart."""

from timm.models.beit import Attention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads
from .parts import head_bias, packed_with_biases


class BeitHost(InteractingAttention, Attention):
    """``timm.models.beit.Attention`` whose heads interact; (B, N, dim) in and out."""

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.out_features // 3 // attn.num_heads  # type: ignore

    def read(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Heads:
        qkv = packed_with_biases(self, x).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.unbind(2)
        own = None if self.relative_position_bias_table is None else self._get_rel_pos_bias()
        return Heads(
            x,
            q,
            k,
            v,
            self.scale,
            qkv=qkv,
            bias=head_bias(own, shared_rel_pos_bias),
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

"""TNT's attention, among the pixels of a patch and among patches: one projection of queries and keys, one of values."""

from timm.models.tnt import Attention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class TntHost(InteractingAttention, Attention):
    """``timm.models.tnt.Attention`` whose heads interact; (B, N, dim) in and out."""

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        same = attn.hidden_dim == attn.v.out_features  # type: ignore[union-attr]
        return frozenset(() if same else {Capability.VALUE_WIDTH})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.v.out_features // attn.num_heads  # type: ignore

    def key_width(self) -> int:
        width: int = self.hidden_dim // self.num_heads
        return width

    def read(self, x: Tensor) -> Heads:
        q, k = self.qk(x).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        v = self.v(x).unflatten(-1, (self.num_heads, -1))
        dropout_p = self.attn_drop.p if self.training else 0.0
        return Heads(x, q, k, v, self.scale, dropout_p=dropout_p)

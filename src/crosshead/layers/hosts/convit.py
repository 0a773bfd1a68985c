"""ConViT's attention of its last blocks. Half of the weights of its others come of positions alone: no host."""

from timm.models.convit import MHSA
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class ConVitHost(InteractingAttention, MHSA):
    """``timm.models.convit.MHSA`` whose heads interact; (B, N, dim) in and out."""

    in_projection = "qkv"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.in_features // attn.num_heads  # type: ignore

    def read(self, x: Tensor) -> Heads:
        qkv = self.packed(x)
        q, k, v = qkv.unbind(2)
        dropout_p = self.attn_drop.p if self.training else 0.0
        return Heads(x, q, k, v, self.scale, qkv=qkv, dropout_p=dropout_p)

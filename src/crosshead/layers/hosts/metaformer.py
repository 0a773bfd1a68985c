"""MetaFormer's attention (CAFormer): plain attention in the later stages of a hierarchical model."""

from timm.models.metaformer import Attention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class MetaFormerHost(InteractingAttention, Attention):
    """``timm.models.metaformer.Attention`` whose heads interact; (B, N, dim) in and out."""

    in_projection = "qkv"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID})

    def read(self, x: Tensor) -> Heads:
        qkv = self.packed(x)
        q, k, v = qkv.unbind(2)
        dropout_p = self.attn_drop.p if self.training else 0.0
        return Heads(x, q, k, v, self.scale, qkv=qkv, dropout_p=dropout_p)

"""CaiT's ``TalkingHeadAttn``, whose heads talk already."""

from timm.models.cait import TalkingHeadAttn
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads, Mixing


class TalkingHost(InteractingAttention, TalkingHeadAttn):
    """``timm.models.cait.TalkingHeadAttn`` whose heads interact further; (B, N, dim) in and out."""

    in_projection = "qkv"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.MIXING})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.out_features // 3 // attn.num_heads  # type: ignore

    def read(self, x: Tensor) -> Heads:
        qkv = self.packed(x)
        q, k, v = qkv.unbind(2)
        dropout_p = self.attn_drop.p if self.training else 0.0
        return Heads(x, q, k, v, self.scale, qkv=qkv, mixing=Mixing.of(self), dropout_p=dropout_p)

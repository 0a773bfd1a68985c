"""The attention of timm's relative-position ViTs: plain attention with a learned bias of offsets."""

from timm.models.vision_transformer_relpos import RelPosAttention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads
from .parts import head_bias, is_normed


class RelativeHost(InteractingAttention, RelPosAttention):
    """``timm.models.vision_transformer_relpos.RelPosAttention`` whose heads interact; (B, N, dim) in and out."""

    in_projection = "qkv"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS})

    def read(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Heads:
        qkv = self.packed(x)
        q, k, v = qkv.unbind(2)
        return Heads(
            x,
            self.q_norm(q),
            self.k_norm(k),
            v,
            self.scale,
            qkv=None if is_normed(self) else qkv,
            bias=head_bias(shared_rel_pos if self.rel_pos is None else self.rel_pos.get_bias()),  # type: ignore
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

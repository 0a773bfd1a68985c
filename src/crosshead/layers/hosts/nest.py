"""NesT's attention: plain attention inside the blocks of an image."""

from timm.models.nest import Attention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..heads import Heads


class NestHost(InteractingAttention, Attention):
    """``timm.models.nest.Attention`` whose heads interact; (B, blocks, N, dim) in and out."""

    in_projection = "qkv"

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.in_features // attn.num_heads  # type: ignore

    def read(self, x: Tensor) -> Heads:
        tokens = x.flatten(0, 1)
        qkv = self.packed(tokens)
        q, k, v = qkv.unbind(2)
        dropout_p = self.attn_drop.p if self.training else 0.0
        return Heads(tokens, q, k, v, self.scale, qkv=qkv, dropout_p=dropout_p, shape=x.shape)

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.shape is not None
        return super().write(out, heads).unflatten(0, heads.shape[:2])

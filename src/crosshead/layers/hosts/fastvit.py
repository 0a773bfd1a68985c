"""FastViT's attention: plain attention over all positions of a map."""

from timm.models.fastvit import Attention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class FastVitHost(InteractingAttention, Attention):
    """``timm.models.fastvit.Attention`` whose heads interact; (B, dim, H, W) in and out."""

    in_projection = "qkv"
    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID})

    def read(self, x: Tensor) -> Heads:
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.packed(tokens)
        q, k, v = qkv.unbind(2)
        dropout_p = self.attn_drop.p if self.training else 0.0
        grid = (x.shape[2], x.shape[3])
        return Heads(tokens, q, k, v, self.scale, qkv=qkv, dropout_p=dropout_p, grid=grid)

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.grid is not None
        found: Tensor = super().write(out, heads).transpose(1, 2).unflatten(2, heads.grid)
        return found

"""VOLO's self-attention: plain attention over all positions of a channels-last map."""

from timm.models.volo import Attention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class VoloHost(InteractingAttention, Attention):
    """``timm.models.volo.Attention`` whose heads interact; (B, H, W, dim) in and out."""

    in_projection = "qkv"
    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.in_features // attn.num_heads  # type: ignore

    def read(self, x: Tensor) -> Heads:
        tokens = x.flatten(1, 2)
        qkv = self.packed(tokens)
        q, k, v = qkv.unbind(2)
        dropout_p = self.attn_drop.p if self.training else 0.0
        grid = (x.shape[1], x.shape[2])
        return Heads(tokens, q, k, v, self.scale, qkv=qkv, dropout_p=dropout_p, grid=grid)

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.grid is not None
        found: Tensor = super().write(out, heads).unflatten(1, heads.grid)
        return found

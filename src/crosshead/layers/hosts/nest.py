"""NesT's attention among the tokens of blocks of an image; its projection reads the heads' channels interleaved."""

from timm.models.nest import Attention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class NestHost(InteractingAttention, Attention):
    """``timm.models.nest.Attention`` whose heads interact; (B, blocks, N, dim) in and out."""

    in_projection = "qkv"
    gives_grid = True  # of blocks that are square

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.FIXED_WIDTH})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.in_features // attn.num_heads  # type: ignore

    def read(self, x: Tensor) -> Heads:
        tokens = x.flatten(0, 1)
        qkv = self.packed(tokens)
        q, k, v = qkv.unbind(2)
        dropout_p = self.attn_drop.p if self.training else 0.0
        return Heads(tokens, q, k, v, self.scale, qkv=qkv, dropout_p=dropout_p, shape=tuple(x.shape[:2]))

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.shape is not None
        interleaved = self.side_by_side(out.unflatten(-1, (self.num_heads, self.head_dim)))
        found: Tensor = super().write(interleaved.unflatten(0, heads.shape), heads)
        return found

    def by_head(self, entering: Tensor) -> Tensor:
        heads: Tensor = entering.unflatten(-1, (self.head_dim, self.num_heads)).mT
        return heads

    def side_by_side(self, heads: Tensor) -> Tensor:
        return heads.mT.flatten(-2)

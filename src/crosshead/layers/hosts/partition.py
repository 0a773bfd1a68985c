"""MaxViT's and CoAtNet's channels-last attention, in windows or grids of an image, with a relative position bias."""

from timm.models.maxxvit import AttentionCl
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads
from .parts import head_bias


class PartitionHost(InteractingAttention, AttentionCl):
    """``timm.models.maxxvit.AttentionCl`` whose heads interact; (B, ..., dim) -> (B, ..., dim_out)."""

    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.dim_head  # type: ignore[return-value]

    def read(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Heads:
        tokens = x.flatten(1, -2)
        axis, order = (3, (self.num_heads, 3)) if self.head_first else (2, (3, self.num_heads))
        qkv = self.qkv(tokens).unflatten(-1, (*order, self.head_dim))
        q, k, v = qkv.unbind(axis)
        return Heads(
            tokens,
            q,
            k,
            v,
            self.scale,
            qkv=None if self.head_first else qkv,
            bias=head_bias(self.rel_pos.get_bias() if self.rel_pos is not None else shared_rel_pos),
            dropout_p=self.attn_drop.p if self.training else 0.0,
            grid=(x.shape[1], x.shape[2]) if x.dim() == 4 else None,
            shape=x.shape,
        )

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.shape is not None
        return super().write(out.view(*heads.shape[:-1], -1), heads)

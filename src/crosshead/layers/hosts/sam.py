"""Segment Anything's attention, in windows or of whole maps: positions meet the queries, or rotate them."""

from timm.models.vision_transformer_sam import Attention, get_decomposed_rel_pos_bias
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads
from .parts import is_normed, rotation


class SamHost(InteractingAttention, Attention):
    """``timm.models.vision_transformer_sam.Attention`` whose heads interact; (B, H, W, dim) in and out."""

    in_projection = "qkv"
    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        found = {Capability.GRID}
        if attn.use_rel_pos:
            found.add(Capability.QUERY_BIAS)
        return frozenset(found if attn.rope is None else found | {Capability.ROTARY})

    def read(self, x: Tensor) -> Heads:
        tokens, grid = x.flatten(1, 2), (x.shape[1], x.shape[2])
        qkv = self.packed(tokens)
        q, k, v = qkv.unbind(2)
        q, k = self.q_norm(q), self.k_norm(k)
        bias = None
        if self.use_rel_pos:
            each = q.transpose(1, 2).flatten(0, 1)
            bias = get_decomposed_rel_pos_bias(each, self.rel_pos_h, self.rel_pos_w, grid, grid)
            bias = bias.unflatten(0, (-1, self.num_heads))
        return Heads(
            tokens,
            q,
            k,
            v,
            self.scale,
            qkv=None if is_normed(self) else qkv,
            rotate=None if self.rope is None else rotation(self, self.rope.get_embed()),  # type: ignore[operator]
            bias=bias,
            grid=grid,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.grid is not None
        found: Tensor = super().write(out.unflatten(1, heads.grid), heads)
        return found

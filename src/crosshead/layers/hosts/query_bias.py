"""A bias of positions that is made of the queries: Segment Anything's attention and MViT v2's."""

from typing import Any

from timm.models import mvitv2, vision_transformer_sam
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..layer import Heads
from .parts import rotation
from .plain import is_normed


class SamHost(InteractingAttention, vision_transformer_sam.Attention):
    """``timm.models.vision_transformer_sam.Attention`` whose heads interact; (B, H, W, dim) in and out.

    In windows or of whole maps; positions meet the queries, or rotate them.
    """

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
            bias = vision_transformer_sam.get_decomposed_rel_pos_bias(
                each, self.rel_pos_h, self.rel_pos_w, grid, grid
            )
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


Size = list[int]


class MvitHost(InteractingAttention, mvitv2.MultiScaleAttention):
    """``timm.models.mvitv2.MultiScaleAttention`` whose heads interact; tokens (B, N, dim) and their map's size, in and
    out.

    Queries, keys and values are pooled, and queries join the result.
    """

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        found = {
            Capability.OTHER_KEYS: attn.pool_q is not None or attn.pool_k is not None,
            Capability.QUERY_BIAS: attn.rel_pos_type == "spatial",
            Capability.FIXED_WIDTH: attn.residual_pooling,
        }
        return frozenset(capability for capability, there in found.items() if there)

    def read(self, x: Tensor, feat_size: Size) -> Heads:
        q, k, v = (
            self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        )
        q, q_size = self._pooled(q, feat_size, self.pool_q, self.norm_q)
        k, k_size = self._pooled(k, feat_size, self.pool_k, self.norm_k)
        v, _ = self._pooled(v, feat_size, self.pool_v, self.norm_v)
        bias = None
        if self.rel_pos_type == "spatial":
            nothing = q.new_zeros(*q.shape[:3], k.shape[2])
            bias = mvitv2.cal_rel_pos_type(
                nothing, q, self.has_cls_token, q_size, k_size, self.rel_pos_h, self.rel_pos_w
            )
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        return Heads(x, q, k, v, self.scale, bias=bias, shape=tuple(q_size))

    def write(self, out: Tensor, heads: Heads) -> tuple[Tensor, Size]:  # type: ignore[override]
        if self.residual_pooling:
            out = out + heads.q.flatten(2)
        assert heads.shape is not None
        return self.proj(out), list(heads.shape)

    def _pooled(self, x: Tensor, size: Size, pool: Any, norm: Any) -> tuple[Tensor, Size]:
        """Of heads (B, h, N, d): those of a smaller map, and its size."""
        if pool is not None:
            x, token = mvitv2.reshape_pre_pool(x, size, self.has_cls_token)
            x, size = mvitv2.reshape_post_pool(pool(x), self.num_heads, token)
        return (x if norm is None else norm(x)), size

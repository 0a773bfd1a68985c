"""MViT v2's attention: queries, keys and values are pooled, positions meet queries, and these join the result."""

from typing import Any

from timm.models.mvitv2 import MultiScaleAttention, cal_rel_pos_type, reshape_post_pool, reshape_pre_pool
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads

Size = list[int]


class MvitHost(InteractingAttention, MultiScaleAttention):
    """``timm.models.mvitv2.MultiScaleAttention`` whose heads interact; tokens (B, N, dim) and their map's size, in and
    out."""

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
            bias = cal_rel_pos_type(
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
            x, token = reshape_pre_pool(x, size, self.has_cls_token)
            x, size = reshape_post_pool(pool(x), self.num_heads, token)
        return (x if norm is None else norm(x)), size

"""MobileNet v4's and v5's attention: all heads share one head of keys and values, which may be of a smaller map."""

from typing import Any

from timm.layers import MultiQueryAttention2d
from torch import Tensor, nn

from ..capabilities import Capability
from ..qkv import Heads
from .parts import OfMaps


class MultiQueryHost(OfMaps, MultiQueryAttention2d):
    """``timm.layers.MultiQueryAttention2d`` whose heads interact; (B, dim, H, W) -> (B, dim_out, H, W)."""

    projection = "output.proj"
    entrance = "output"
    output: Any

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        found = {
            Capability.OTHER_KEYS: attn.has_query_strides or attn.kv_stride > 1,  # type: ignore[operator]
            Capability.VALUE_WIDTH: attn.value_dim != attn.key_dim,
        }
        return frozenset(capability for capability, there in found.items() if there)

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.value_dim  # type: ignore[return-value]

    def key_width(self) -> int:
        return self.key_dim

    def read(self, x: Tensor, attn_mask: Tensor | None = None) -> Heads:
        asked = self.query(x)
        q, k, v = (part.flatten(2).transpose(1, 2) for part in (asked, self.key(x), self.value(x)))
        k, v = (part.unsqueeze(2).expand(-1, -1, self.num_heads, -1) for part in (k, v))
        return Heads(
            x.flatten(2).transpose(1, 2),
            q.unflatten(-1, (self.num_heads, self.key_dim)),
            k,
            v,
            self.scale,
            attn_mask=attn_mask,
            dropout_p=self.attn_drop.p if self.training else 0.0,
            shape=(asked.shape[2], asked.shape[3]),
        )

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.shape is not None
        found: Tensor = self.output(out.transpose(1, 2).unflatten(2, heads.shape))
        return found

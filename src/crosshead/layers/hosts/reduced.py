"""Keys and values of a smaller map than the queries: PVT v2, Twins, NextViT, and MobileNet, of one head for all."""

from typing import Any

from timm.layers import MultiQueryAttention2d
from timm.models import nextvit, pvt_v2, twins
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..layer import Heads
from .parts import OfMaps


class ReducedHost(InteractingAttention):
    """What the three have in common: queries of all tokens, keys and values of ``_reduced`` ones."""

    gives_grid = True
    sr: Any
    norm: Any
    attn_drop: nn.Dropout

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        reduces = attn.sr is not None or getattr(attn, "pool", None) is not None
        return frozenset({Capability.OTHER_KEYS if reduces else Capability.GRID})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.proj.in_features // attn.num_heads  # type: ignore

    def read(self, x: Tensor, size: tuple[int, int] | None = None) -> Heads:
        q = self.get_submodule("q")(x).unflatten(-1, (self.num_heads, self.head_dim))
        k, v = self._keys_and_values(self._reduced(x, size))
        grid = None if size is None else (size[0], size[1])
        dropout_p = self.attn_drop.p if self.training else 0.0
        return Heads(x, q, k, v, self.head_dim**-0.5, grid=grid, dropout_p=dropout_p)

    def _keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.get_submodule("kv")(x).unflatten(-1, (2, self.num_heads, self.head_dim)).unbind(2)
        return k, v

    def _reduced(self, x: Tensor, size: tuple[int, int] | None) -> Tensor:
        if self.sr is None:
            return x
        assert size is not None
        found: Tensor = self.norm(self.sr(_map_of(x, size)).flatten(2).transpose(1, 2))
        return found


class PvtHost(ReducedHost, pvt_v2.Attention):
    """``timm.models.pvt_v2.Attention`` whose heads interact; tokens (B, N, dim) and the size of their map in."""

    def read(self, x: Tensor, feat_size: tuple[int, int]) -> Heads:  # type: ignore[override]
        return super().read(x, feat_size)

    def _reduced(self, x: Tensor, size: tuple[int, int] | None) -> Tensor:
        if self.pool is None:
            return super()._reduced(x, size)
        assert size is not None
        act: Any = self.act
        pooled = self.sr(self.pool(_map_of(x, size))).flatten(2).transpose(1, 2)
        found: Tensor = act(self.norm(pooled))
        return found


class TwinsHost(ReducedHost, twins.GlobalSubSampleAttn):
    """``timm.models.twins.GlobalSubSampleAttn`` whose heads interact; tokens (B, N, dim) and their map's size in."""


class NextVitHost(ReducedHost, nextvit.EfficientAttention):
    """``timm.models.nextvit.EfficientAttention`` whose heads interact; (B, N, dim) in and out."""

    gives_grid = False

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return super().brings(attn) - {Capability.GRID}  # nobody tells it of its map

    def _keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (linear(x).unflatten(-1, (self.num_heads, self.head_dim)) for linear in (self.k, self.v))
        return k, v

    def _reduced(self, x: Tensor, size: tuple[int, int] | None) -> Tensor:
        if self.sr is None:
            return x
        found: Tensor = self.norm(self.sr(x.transpose(1, 2))).transpose(1, 2)
        return found


def _map_of(x: Tensor, size: tuple[int, int]) -> Tensor:
    rows, columns = size  # not int(): a tracer's would be its example's
    found: Tensor = x.transpose(1, 2).unflatten(2, (rows, columns))
    return found


class MultiQueryHost(OfMaps, MultiQueryAttention2d):
    """``timm.layers.MultiQueryAttention2d`` whose heads interact; (B, dim, H, W) -> (B, dim_out, H, W).

    All heads share one head of keys and values.
    """

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

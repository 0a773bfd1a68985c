"""Attention over all positions of a map: FastViT, VOLO, and by convolutions of 1 x 1 CoAtNet and Visformer."""

from typing import Any

from timm.models import fastvit, maxxvit, visformer, volo
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..layer import Heads
from .parts import OfMaps, head_bias, of_tokens


class FastVitHost(InteractingAttention, fastvit.Attention):
    """``timm.models.fastvit.Attention`` whose heads interact; (B, dim, H, W) in and out."""

    in_projection = "qkv"
    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID})

    def read(self, x: Tensor) -> Heads:
        return of_tokens(self, x.flatten(2).transpose(1, 2), grid=(x.shape[2], x.shape[3]))

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.grid is not None
        found: Tensor = super().write(out, heads).transpose(1, 2).unflatten(2, heads.grid)
        return found


class VoloHost(InteractingAttention, volo.Attention):
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
        return of_tokens(self, x.flatten(1, 2), grid=(x.shape[1], x.shape[2]))

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.grid is not None
        found: Tensor = super().write(out, heads).unflatten(1, heads.grid)
        return found


class MapHost(OfMaps):
    """What both have in common; (B, dim, H, W) in and out."""

    gives_grid = True
    qkv: nn.Conv2d
    attn_drop: nn.Dropout

    def token_width(self) -> int:
        return self.qkv.in_channels

    def _heads(self, x: Tensor, by_head: bool, **more: Any) -> Heads:
        """``by_head``: whether the channels of ``qkv`` are head by head, each with its queries, keys and values."""
        axis, order = (3, (self.num_heads, 3)) if by_head else (2, (3, self.num_heads))
        tokens, channels = (part.flatten(2).transpose(1, 2) for part in (x, self.qkv(x)))
        q, k, v = channels.unflatten(-1, (*order, self.head_dim)).unbind(axis)
        return Heads(
            tokens,
            q,
            k,
            v,
            self.scale,
            grid=(x.shape[2], x.shape[3]),
            dropout_p=self.attn_drop.p if self.training else 0.0,
            **more,
        )

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.grid is not None
        found: Tensor = super().write(out.transpose(1, 2).unflatten(2, heads.grid), heads)
        return found


class CoAtNetHost(MapHost, maxxvit.Attention2d):
    """``timm.models.maxxvit.Attention2d`` whose heads interact; (B, dim, H, W) -> (B, dim_out, H, W)."""

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.dim_head  # type: ignore[return-value]

    def read(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Heads:
        own = shared_rel_pos if self.rel_pos is None else self.rel_pos.get_bias()
        return self._heads(x, self.head_first, bias=head_bias(own))


class VisformerHost(MapHost, visformer.Attention):
    """``timm.models.visformer.Attention`` whose heads interact; (B, dim, H, W) in and out."""

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID})

    def read(self, x: Tensor) -> Heads:
        return self._heads(x, False)

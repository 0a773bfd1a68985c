"""Attention among the tokens of a part of the image: MaxViT's windows and grids, NesT's blocks, Twins' groups, the mask
units of Hiera and those of SAM 2's backbone."""

import torch.nn.functional as F
from timm.models import hiera, hieradet_sam2, maxxvit, nest, twins
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..layer import Heads
from .parts import head_bias, of_tokens


class PartitionHost(InteractingAttention, maxxvit.AttentionCl):
    """``timm.models.maxxvit.AttentionCl`` whose heads interact; (B, ..., dim) -> (B, ..., dim_out).

    A relative position bias.
    """

    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.dim_head  # type: ignore[return-value]

    def token_width(self) -> int:
        return self.qkv.in_features

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


class NestHost(InteractingAttention, nest.Attention):
    """``timm.models.nest.Attention`` whose heads interact; (B, blocks, N, dim) in and out.

    The projection reads the heads' channels interleaved.
    """

    in_projection = "qkv"
    gives_grid = True  # of blocks that are square

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.FIXED_WIDTH})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.in_features // attn.num_heads  # type: ignore

    def read(self, x: Tensor) -> Heads:
        return of_tokens(self, x.flatten(0, 1), shape=tuple(x.shape[:2]))

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


class GroupedHost(InteractingAttention, twins.LocallyGroupedAttn):
    """``timm.models.twins.LocallyGroupedAttn`` whose heads interact; tokens (B, N, dim) and their map's size in.

    It cuts the squares of the map itself.
    """

    in_projection = "qkv"
    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.dim // attn.num_heads  # type: ignore

    def read(self, x: Tensor, size: tuple[int, int]) -> Heads:
        rows, columns = size  # not int(): a tracer's would be its example's
        side = self.ws
        whole = F.pad(x.unflatten(1, (rows, columns)), (0, 0, 0, -columns % side, 0, -rows % side))
        cut = whole.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
        tokens = cut.reshape(-1, side * side, x.shape[-1])
        return of_tokens(self, tokens, grid=(side, side), shape=(x.shape[0], rows, columns))

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.shape is not None
        batch, rows, columns = heads.shape
        side = self.ws
        down, across = -(-rows // side), -(-columns // side)
        out = out.reshape(batch, down, across, side, side, -1).transpose(2, 3)
        out = out.reshape(batch, down * side, across * side, -1)[:, :rows, :columns]
        found: Tensor = super().write(out.flatten(1, 2), heads)
        return found


class HieraHost(InteractingAttention, hiera.MaskUnitAttention):
    """``timm.models.hiera.MaskUnitAttention`` whose heads interact; (B, N, dim) -> (B, N / q_stride, dim_out).

    Tokens lie so that those of one mask unit are ``N / tokens of a unit`` apart.
    """

    unplaced = "its tokens lie unrolled, mask unit by mask unit, not row by row"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.OTHER_KEYS} if attn.q_stride > 1 else ())  # type: ignore

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.heads, attn.head_dim  # type: ignore[return-value]

    def token_width(self) -> int:
        return self.qkv.in_features

    def read(self, x: Tensor) -> Heads:
        units = x.shape[1] // (self.q_stride * self.window_size) if self.use_mask_unit_attn else 1
        tokens, qkv = (
            part.unflatten(1, (-1, units)).transpose(1, 2).flatten(0, 1) for part in (x, self.qkv(x))
        )
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(2)
        if self.q_stride > 1:
            q = q.unflatten(1, (self.q_stride, -1)).amax(dim=1)
        return Heads(tokens, q, k, v, self.scale, shape=(x.shape[0], units))

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.shape is not None
        found: Tensor = self.proj(out.unflatten(0, heads.shape).transpose(1, 2).flatten(1, 2))
        return found


class HieraDetHost(InteractingAttention, hieradet_sam2.MultiScaleAttention):
    """``timm.models.hieradet_sam2.MultiScaleAttention`` whose heads interact; (B, H, W, dim) ->
    (B, H', W', dim_out).

    Queries may be pooled.
    """

    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID if attn.q_pool is None else Capability.OTHER_KEYS})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.dim_out // attn.num_heads  # type: ignore

    def token_width(self) -> int:
        return self.qkv.in_features

    def read(self, x: Tensor) -> Heads:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.flatten(1, 2).unbind(2)
        grid = (x.shape[1], x.shape[2])
        if self.q_pool is not None:
            pooled = self.q_pool(q.flatten(2).transpose(1, 2).unflatten(2, grid))
            grid = (pooled.shape[2], pooled.shape[3])
            q = pooled.flatten(2).transpose(1, 2).unflatten(-1, (self.num_heads, self.head_dim))
        return Heads(x.flatten(1, 2), q, k, v, self.scale, grid=grid)

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.grid is not None
        found: Tensor = self.proj(out.unflatten(1, heads.grid))
        return found

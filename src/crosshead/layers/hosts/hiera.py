"""Hiera's attention, in mask units or among all tokens, and that of SAM 2's backbone: queries may be pooled."""

from timm.models.hiera import MaskUnitAttention
from timm.models.hieradet_sam2 import MultiScaleAttention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class HieraHost(InteractingAttention, MaskUnitAttention):
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


class HieraDetHost(InteractingAttention, MultiScaleAttention):
    """``timm.models.hieradet_sam2.MultiScaleAttention`` whose heads interact; (B, H, W, dim) ->
    (B, H', W', dim_out)."""

    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID if attn.q_pool is None else Capability.OTHER_KEYS})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.dim_out // attn.num_heads  # type: ignore

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

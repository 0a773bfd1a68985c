"""Twins' attention within groups, squares of a map, which it cuts itself."""

import torch.nn.functional as F
from timm.models.twins import LocallyGroupedAttn
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class GroupedHost(InteractingAttention, LocallyGroupedAttn):
    """``timm.models.twins.LocallyGroupedAttn`` whose heads interact; tokens (B, N, dim) and their map's size in."""

    in_projection = "qkv"
    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.dim // attn.num_heads  # type: ignore

    def read(self, x: Tensor, size: tuple[int, int]) -> Heads:
        rows, columns = (int(length) for length in size)
        side = self.ws
        whole = F.pad(x.unflatten(1, (rows, columns)), (0, 0, 0, -columns % side, 0, -rows % side))
        cut = whole.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
        tokens = cut.reshape(-1, side * side, x.shape[-1])
        qkv = self.packed(tokens)
        q, k, v = qkv.unbind(2)
        dropout_p = self.attn_drop.p if self.training else 0.0
        shape = (x.shape[0], rows, columns)
        return Heads(
            tokens, q, k, v, self.scale, qkv=qkv, grid=(side, side), dropout_p=dropout_p, shape=shape
        )

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.shape is not None
        batch, rows, columns = heads.shape
        side = self.ws
        down, across = -(-rows // side), -(-columns // side)
        out = out.reshape(batch, down, across, side, side, -1).transpose(2, 3)
        out = out.reshape(batch, down * side, across * side, -1)[:, :rows, :columns]
        found: Tensor = super().write(out.flatten(1, 2), heads)
        return found

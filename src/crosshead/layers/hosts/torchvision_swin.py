"""torchvision's Swin and Swin v2, whose attention cuts its map into (shifted) windows itself."""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..layer import Heads
from ..linear import linear_with


class ShiftedWindowHost(InteractingAttention, ShiftedWindowAttention):  # type: ignore[misc]
    """torchvision's ``ShiftedWindowAttention`` whose heads interact; (B, H, W, dim) in and out."""

    window_size: list[int]
    shift_size: list[int]
    attention_dropout: float
    dropout: float
    qkv: nn.Linear
    proj: nn.Linear
    get_relative_position_bias: Callable[[], Tensor]

    in_projection: ClassVar[str | None] = "qkv"
    calls_projection = False
    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS, Capability.MASK})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.out_features // 3 // attn.num_heads  # type: ignore

    def read(self, x: Tensor) -> Heads:
        tokens, mask = self._windows(x)
        qkv = self.packed(tokens)
        q, k, v = qkv.unbind(2)
        return self._heads(x, tokens, q, k, v, mask, self.head_dim**-0.5, qkv=qkv)

    def _heads(
        self, x: Tensor, tokens: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float,
        qkv: Tensor | None = None,
    ) -> Heads:  # fmt: skip
        return Heads(
            tokens,
            q,
            k,
            v,
            scale,
            qkv=qkv,
            bias=self.get_relative_position_bias().squeeze(0),
            window_mask=mask,
            grid=(self.window_size[0], self.window_size[1]),
            dropout_p=self.attention_dropout if self.training else 0.0,
            shape=tuple(x.shape),
        )

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.shape is not None
        batch, rows, columns, _ = heads.shape
        out = F.dropout(self.proj(out), p=self.dropout, training=self.training)
        high, wide = self.window_size
        down, across = -(-rows // high), -(-columns // wide)
        out = out.unflatten(1, (high, wide)).unflatten(0, (batch, down, across))
        out = out.transpose(2, 3).reshape(batch, down * high, across * wide, -1)
        shift = self._shift(rows, columns)
        if any(shift):
            out = torch.roll(out, shift, (1, 2))
        return out[:, :rows, :columns].contiguous()

    def _shift(self, rows: int, columns: int) -> tuple[int, int]:
        """None along an axis that has one window."""
        down, across = (
            0 if size >= length else shift
            for size, length, shift in zip(self.window_size, (rows, columns), self.shift_size, strict=True)
        )
        return down, across

    def _windows(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens (B · windows, N, dim) of a map, filled up to whole windows and shifted, and what parts them."""
        rows, columns = x.shape[1:3]
        high, wide = self.window_size
        x = F.pad(x, (0, 0, 0, -columns % wide, 0, -rows % high))
        down, across = self._shift(rows, columns)
        if not (down or across):
            return _partition(x, high, wide), None
        x = torch.roll(x, (-down, -across), (1, 2))
        region = _regions(x.shape[1], high, down, x.device).unsqueeze(1) * 3
        region = region + _regions(x.shape[2], wide, across, x.device)
        numbers = _partition(region[None, :, :, None], high, wide).squeeze(-1)
        apart = numbers.unsqueeze(1) != numbers.unsqueeze(2)
        return _partition(x, high, wide), torch.zeros_like(apart, dtype=x.dtype).masked_fill(apart, -100.0)


class ShiftedWindowV2Host(ShiftedWindowHost, ShiftedWindowAttentionV2):  # type: ignore[misc]
    """torchvision's ``ShiftedWindowAttentionV2`` whose heads interact; (B, H, W, dim) in and out.

    Queries and keys are normalised over a head's own channels, and the head's scale is part of its queries.
    """

    logit_scale: Tensor

    in_projection: ClassVar[str | None] = None

    def token_width(self) -> int:
        return self.qkv.in_features

    def read(self, x: Tensor) -> Heads:
        tokens, mask = self._windows(x)
        bias: Tensor | None = self.qkv.bias
        if bias is not None:  # that of the keys counts as 0
            bias = torch.cat(
                [part if i != 1 else torch.zeros_like(part) for i, part in enumerate(bias.chunk(3))]
            )
        qkv = linear_with(self.qkv, tokens, bias).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.unbind(2)
        scale = torch.clamp(self.logit_scale, max=math.log(100.0)).exp()
        q, k = F.normalize(q, dim=-1) * scale.view(-1, 1), F.normalize(k, dim=-1)
        return self._heads(x, tokens, q, k, v, mask, 1.0)


def _partition(x: Tensor, high: int, wide: int) -> Tensor:
    """Windows (B · windows, high · wide, channels) of maps (B, H, W, channels)."""
    batch, rows, columns, channels = x.shape
    x = x.view(batch, rows // high, high, columns // wide, wide, channels)
    return x.transpose(2, 3).reshape(-1, high * wide, channels)


def _regions(length: int, size: int, shift: int, device: torch.device) -> Tensor:
    """For each place along an axis, which of up to three parts of the image lies there after a shift."""
    place = torch.arange(length, device=device)
    return (place >= length - size).long() + (place >= length - shift).long() if shift else place * 0


def host_for(attention: type[nn.Module]) -> type[ShiftedWindowHost] | None:
    """The host of one of torchvision's classes of attention, or None for what is no such class."""
    hosts = {
        ShiftedWindowAttention: ShiftedWindowHost,
        ShiftedWindowAttentionV2: ShiftedWindowV2Host,
    }
    return hosts.get(attention)

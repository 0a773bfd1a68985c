"""CPUBone's and LowFormer's attention: heads of a convolved, smaller map, whose result is made as large again."""

from typing import Any, Self

from torch import Tensor, nn

from ..capabilities import Capability
from ..layer import Heads
from .parts import MadeWhenWanted, OfMaps


class ConvolvedHost(OfMaps, MadeWhenWanted):
    """A ``ConvAttention`` of timm's whose heads interact; (B, dim, H, W) in and out."""

    projection = "o_proj"
    conv_proj: nn.Module
    pwise: nn.Module
    o_proj: Any
    upsampling: Any

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        fused = isinstance(attn.o_proj, nn.Identity)
        return frozenset({Capability.FIXED_WIDTH} if fused else ())

    @classmethod
    def adopt(cls, attn: nn.Module) -> Self:
        layer = super().adopt(attn)
        if isinstance(attn.o_proj, nn.Identity):  # the way back to the map's size projects the heads
            up = attn.upsampling
            layer.projection = "upsampling.0" if isinstance(up, nn.Sequential) else "upsampling"
        return layer

    def token_width(self) -> int:
        width: int = self.get_submodule("pwise").in_channels  # type: ignore[assignment]
        return width

    def read(self, x: Tensor) -> Heads:
        size = (x.shape[2], x.shape[3])
        stride: Any = getattr(self, "att_stride", 1)
        if getattr(self, "small_kernels", False) and stride > 1:  # they round down
            x = nn.functional.pad(x, (0, -size[1] % stride, 0, -size[0] % stride))
        smaller = self.conv_proj(x)
        tokens, heads = (part.flatten(2).transpose(1, 2) for part in (smaller, self.pwise(smaller)))
        q, k, v = heads.unflatten(-1, (self.num_heads, 3, self.head_dim)).unbind(3)
        return Heads(tokens, q, k, v, self.scale, shape=(*smaller.shape[2:], *size))

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        assert heads.shape is not None
        rows, columns, high, wide = heads.shape
        found: Tensor = self.upsampling(self.o_proj(out.transpose(1, 2).unflatten(2, (rows, columns))))
        return found[..., :high, :wide]


def host_for(attention: type[nn.Module]) -> type[ConvolvedHost] | None:
    """The host of a ``ConvAttention``, which two of timm's younger models have each a copy of, or None."""
    if attention.__name__ != "ConvAttention":
        return None
    return type(f"{attention.__module__.rpartition('.')[2].title()}Host", (ConvolvedHost, attention), {})

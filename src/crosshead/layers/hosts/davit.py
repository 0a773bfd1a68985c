"""DaViT's attention over the tokens of a window. That over channels, in every other block, is left as it is."""

from timm.models.davit import WindowAttention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class DaVitHost(InteractingAttention, WindowAttention):
    """``timm.models.davit.WindowAttention`` whose heads interact; (images · windows, N, dim) in and out."""

    in_projection = "qkv"
    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.dim // attn.num_heads  # type: ignore

    def read(self, x: Tensor) -> Heads:
        qkv = self.packed(x)
        q, k, v = qkv.unbind(2)
        return Heads(x, q, k, v, self.scale, qkv=qkv, grid=(self.window_size[0], self.window_size[1]))

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        found: Tensor = self.proj(out)
        return found

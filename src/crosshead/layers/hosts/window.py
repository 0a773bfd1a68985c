"""Swin's ``WindowAttention``: a learned bias for every pair of tokens of a window, and a mask where windows shift."""

from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class WindowHost(InteractingAttention, WindowAttention):
    """``timm.models.swin_transformer.WindowAttention`` whose heads interact; (images · windows, N, dim) in and out."""

    in_projection = "qkv"
    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS, Capability.MASK})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.out_features // 3 // attn.num_heads  # type: ignore

    def read(self, x: Tensor, mask: Tensor | None = None) -> Heads:
        qkv = self.packed(x)
        q, k, v = qkv.unbind(2)
        return Heads(
            x,
            q,
            k,
            v,
            self.scale,
            qkv=qkv,
            bias=self._get_rel_pos_bias().squeeze(0),
            window_mask=mask,
            grid=(self.window_size[0], self.window_size[1]),
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

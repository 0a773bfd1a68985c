"""LeViT's and EfficientFormer's attention: values wider than keys, a learned bias of distances."""

from typing import Any

from timm.models import efficientformer, levit
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads


class WideValuesHost(InteractingAttention):
    """What both have in common; tokens (B, N, dim) in and out."""

    key_dim: int
    val_dim: int
    attention_biases: nn.Parameter
    attention_bias_idxs: Tensor

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        wide = {Capability.VALUE_WIDTH} if attn.val_dim != attn.key_dim else set()
        return frozenset({Capability.BIAS, *wide})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.val_dim  # type: ignore[return-value]

    def key_width(self) -> int:
        return self.key_dim

    def read(self, x: Tensor) -> Heads:
        return self._heads(x, self.get_submodule("qkv")(x))

    def _heads(self, x: Tensor, qkv: Tensor) -> Heads:
        """The heads of packed ones (B, N, all channels): queries, keys and values head by head."""
        q, k, v = qkv.unflatten(-1, (self.num_heads, -1)).split(
            [self.key_dim, self.key_dim, self.val_dim], dim=-1
        )
        # Not timm's cache of them, which keeps a graph of its first call.
        bias = self.attention_biases[:, self.attention_bias_idxs]
        return Heads(x, q, k, v, self.key_dim**-0.5, bias=bias, shape=tuple(x.shape))

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        found: Tensor = self.get_submodule("proj")(out)
        return found


class LevitHost(WideValuesHost, levit.Attention):
    """``timm.models.levit.Attention`` whose heads interact; (B, N, dim), or (B, dim, H, W) where it convolves.

    An activation lies between the heads and their projection, of what they borrow too.
    """

    projection = "proj.ln.linear"
    entrance = "proj"

    def read(self, x: Tensor) -> Heads:
        if not self.use_conv:
            return super().read(x)
        return self._heads(_tokens(x), _tokens(self.qkv(x)))

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        if not self.use_conv:
            return super().write(out, heads)
        rows, columns = self.resolution  # type: ignore[misc]
        found: Tensor = self.proj(out.transpose(1, 2).unflatten(2, (rows, columns)))
        return found

    def by_head(self, entering: Tensor) -> Tensor:
        return super().by_head(entering.movedim(1, -1) if self.use_conv else entering)

    def side_by_side(self, heads: Tensor) -> Tensor:
        found = super().side_by_side(heads)
        return found.movedim(-1, 1) if self.use_conv else found


class EfficientFormerHost(WideValuesHost, efficientformer.Attention):
    """``timm.models.efficientformer.Attention`` whose heads interact; (B, N, dim) in and out."""


def _tokens(x: Any) -> Tensor:
    """(B, H·W, channels) of a map (B, channels, H, W)."""
    found: Tensor = x.flatten(2).transpose(1, 2)
    return found

"""A learned bias of the tokens' positions: relative-position ViTs, BEiT, TinyViT, LeViT and EfficientFormer."""

from typing import Any

from timm.models import beit, efficientformer, levit, tiny_vit, vision_transformer_relpos
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..layer import Heads
from .parts import head_bias, packed_with_biases
from .plain import is_normed


class RelativeHost(InteractingAttention, vision_transformer_relpos.RelPosAttention):
    """``timm.models.vision_transformer_relpos.RelPosAttention`` whose heads interact; (B, N, dim) in and out.

    A learned bias of offsets.
    """

    in_projection = "qkv"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS})

    def read(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Heads:
        qkv = self.packed(x)
        q, k, v = qkv.unbind(2)
        return Heads(
            x,
            self.q_norm(q),
            self.k_norm(k),
            v,
            self.scale,
            qkv=None if is_normed(self) else qkv,
            bias=head_bias(shared_rel_pos if self.rel_pos is None else self.rel_pos.get_bias()),  # type: ignore
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )


class BeitHost(InteractingAttention, beit.Attention):
    """``timm.models.beit.Attention`` whose heads interact; (B, N, dim) in and out.

    A bias that knows the class token; biases of queries and values apart.
    """

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.out_features // 3 // attn.num_heads  # type: ignore

    def read(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Heads:
        qkv = packed_with_biases(self, x).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.unbind(2)
        own = None if self.relative_position_bias_table is None else self._get_rel_pos_bias()
        return Heads(
            x,
            q,
            k,
            v,
            self.scale,
            qkv=qkv,
            bias=head_bias(own, shared_rel_pos_bias),
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )


class TinyVitHost(InteractingAttention, tiny_vit.Attention):
    """``timm.models.tiny_vit.Attention`` whose heads interact; (images · windows, N, dim) in and out.

    A norm before it inside the module, and a learned bias of distances.
    """

    gives_grid = True  # of windows that are square

    @classmethod
    def refusal(cls, attn: nn.Module) -> str | None:
        if attn.val_dim != attn.key_dim:
            return (
                f"its values are {attn.val_dim} wide and its keys {attn.key_dim}; heads have one width here"
            )
        return None

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.key_dim  # type: ignore[return-value]

    def read(self, x: Tensor) -> Heads:
        tokens = self.norm(x)
        q, k, v = self.qkv(tokens).unflatten(-1, (self.num_heads, 3, self.head_dim)).unbind(3)
        return Heads(tokens, q, k, v, self.scale, bias=self.get_attention_biases(x.device))

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        found: Tensor = self.proj(out)
        return found


class WideValuesHost(InteractingAttention):
    """What both have in common; tokens (B, N, dim) in and out.

    Values wider than keys, and a learned bias of distances.
    """

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

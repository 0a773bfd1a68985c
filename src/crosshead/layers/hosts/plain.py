"""timm's plain attention among tokens (B, N, dim): the library's own and its like in CAFormer, ConViT, CaiT and TNT."""

from timm import layers
from timm.models import cait, convit, metaformer, tnt
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..layer import Heads, Mixing
from .parts import of_tokens


class PlainHost(InteractingAttention, layers.Attention):
    """``timm.layers.Attention`` whose heads interact; (B, N, dim) -> (B, N, dim_out).

    One packed projection, norms of queries and keys, an optional norm and gate of the output.
    """

    in_projection = "qkv"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID}) | output_brings(attn)

    def read(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Heads:
        qkv = self.packed(x)
        q, k, v = qkv.unbind(2)
        return Heads(
            x,
            self.q_norm(q),
            self.k_norm(k),
            v,
            self.scale,
            qkv=None if is_normed(self) else qkv,
            attn_mask=attn_mask,
            is_causal=is_causal,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        return super().write(norm_and_gate(self, out, heads.tokens), heads)


class MetaFormerHost(InteractingAttention, metaformer.Attention):
    """``timm.models.metaformer.Attention`` whose heads interact; (B, N, dim) in and out.

    Plain attention in the later stages of a hierarchical model.
    """

    in_projection = "qkv"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID})

    def read(self, x: Tensor) -> Heads:
        return of_tokens(self, x)


class ConVitHost(InteractingAttention, convit.MHSA):
    """``timm.models.convit.MHSA`` whose heads interact; (B, N, dim) in and out.

    Of its last blocks: half of the weights of its others come of positions alone, and those have no host.
    """

    in_projection = "qkv"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.in_features // attn.num_heads  # type: ignore

    def read(self, x: Tensor) -> Heads:
        return of_tokens(self, x)


class TalkingHost(InteractingAttention, cait.TalkingHeadAttn):
    """``timm.models.cait.TalkingHeadAttn`` whose heads interact further; (B, N, dim) in and out."""

    in_projection = "qkv"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.MIXING})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.out_features // 3 // attn.num_heads  # type: ignore

    def read(self, x: Tensor) -> Heads:
        return of_tokens(self, x, mixing=Mixing.of(self))


class TntHost(InteractingAttention, tnt.Attention):
    """``timm.models.tnt.Attention`` whose heads interact; (B, N, dim) in and out.

    Among the pixels of a patch and among patches: one projection of queries and keys, one of values.
    """

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        same = attn.hidden_dim == attn.v.out_features  # type: ignore[union-attr]
        return frozenset(() if same else {Capability.VALUE_WIDTH})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.v.out_features // attn.num_heads  # type: ignore

    def key_width(self) -> int:
        width: int = self.hidden_dim // self.num_heads
        return width

    def read(self, x: Tensor) -> Heads:
        q, k = self.qk(x).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        v = self.v(x).unflatten(-1, (self.num_heads, -1))
        dropout_p = self.attn_drop.p if self.training else 0.0
        return Heads(x, q, k, v, self.scale, dropout_p=dropout_p)


def is_normed(layer: nn.Module) -> bool:
    """Whether a module normalises its queries or keys."""
    return not (isinstance(layer.q_norm, nn.Identity) and isinstance(layer.k_norm, nn.Identity))


def output_brings(attn: nn.Module) -> frozenset[Capability]:
    """The output norm and the gate of timm's modules, where they are."""
    found = set()
    if not isinstance(getattr(attn, "norm", None), nn.Identity | None):
        found.add(Capability.OUTPUT_NORM)
    if getattr(attn, "gate", None) is not None:
        found.add(Capability.GATE)
    return frozenset(found)


def norm_and_gate(layer: nn.Module, out: Tensor, tokens: Tensor) -> Tensor:
    """What timm's modules do between the heads and the projection. timm knows the gate from 1.0.28 on."""
    out = layer.norm(out)  # type: ignore[operator]
    gate = getattr(layer, "gate", None)
    return out if gate is None else out * gate(tokens).sigmoid()

"""timm's ``Attention``: one packed projection, norms of queries and keys, an optional norm and gate of the output."""

from timm.layers import Attention
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..heads import Heads


class PlainHost(InteractingAttention, Attention):
    """``timm.layers.Attention`` whose heads interact; (B, N, dim) -> (B, N, dim_out)."""

    in_projection = "qkv"

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID}) | output_brings(attn)

    def read(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Heads:
        qkv = self.packed(x)
        q, k, v = qkv.unbind(2)
        normed = not (isinstance(self.q_norm, nn.Identity) and isinstance(self.k_norm, nn.Identity))
        return Heads(
            x,
            self.q_norm(q),
            self.k_norm(k),
            v,
            self.scale,
            qkv=None if normed else qkv,
            attn_mask=attn_mask,
            is_causal=is_causal,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        return super().write(norm_and_gate(self, out, heads.tokens), heads)


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

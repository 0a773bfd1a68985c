"""Cross-covariance attention (XCiT, EdgeNeXt): every head weighs its channels, by their products over all tokens."""

import torch.nn.functional as F
from timm.models import edgenext, xcit
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..layer import Heads


class XcaHost(InteractingAttention, xcit.XCA):
    """``timm.models.xcit.XCA`` whose heads interact; (B, N, dim) in and out.

    A head's channels stand where tokens do elsewhere, and the tokens where channels do: maps are (d, d) a head.
    """

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.CHANNELS})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.out_features // 3 // attn.num_heads  # type: ignore

    def read(self, x: Tensor) -> Heads:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 4, 3, 1).unbind(0)  # (B, d, h, N) each
        q = F.normalize(q, dim=-1) * self.temperature.view(-1, 1)
        dropout_p = self.attn_drop.p if self.training else 0.0
        return Heads(x, q, F.normalize(k, dim=-1), v, 1.0, dropout_p=dropout_p)

    def write(self, out: Tensor, heads: Heads) -> Tensor:
        tokens = out.unflatten(-1, (self.num_heads, -1)).permute(0, 3, 2, 1).flatten(2)
        found: Tensor = super().write(tokens, heads)
        return found


class EdgeNextHost(XcaHost, edgenext.CrossCovarianceAttn):
    """``timm.models.edgenext.CrossCovarianceAttn`` whose heads interact, written as XCiT's; (B, N, dim) in and out."""

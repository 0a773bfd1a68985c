"""Attention in windows that the model cuts: Swin, both of timm's Swin v2, DaViT and GCViT."""

import torch
from timm.models import davit, gcvit, swin_transformer, swin_transformer_v2, swin_transformer_v2_cr
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..layer import Heads
from .parts import by_cosines, head_bias, of_tokens, packed_with_biases


class WindowHost(InteractingAttention, swin_transformer.WindowAttention):
    """``timm.models.swin_transformer.WindowAttention`` whose heads interact; (images · windows, N, dim) in and out.

    A learned bias for every pair of tokens of a window, and a mask where windows shift.
    """

    in_projection = "qkv"
    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS, Capability.MASK})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.qkv.out_features // 3 // attn.num_heads  # type: ignore

    def read(self, x: Tensor, mask: Tensor | None = None) -> Heads:
        return of_tokens(
            self,
            x,
            bias=self._get_rel_pos_bias().squeeze(0),
            window_mask=mask,
            grid=(self.window_size[0], self.window_size[1]),
        )


class WindowV2Host(InteractingAttention, swin_transformer_v2.WindowAttention):
    """``timm.models.swin_transformer_v2.WindowAttention`` whose heads interact; (images · windows, N, dim) in and out.

    Cosine logits under a learned scale for each head, a bias from an MLP over offsets.
    """

    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS, Capability.MASK})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.dim // attn.num_heads  # type: ignore

    def read(self, x: Tensor, mask: Tensor | None = None) -> Heads:
        qkv = packed_with_biases(self, x).unflatten(-1, (3, self.num_heads, self.head_dim))
        return by_cosines(
            self,
            x,
            qkv,
            bias=self._position_bias(),
            window_mask=mask,
            grid=(self.window_size[0], self.window_size[1]),
        )

    def _position_bias(self) -> Tensor:
        area = self.window_size[0] * self.window_size[1]
        table = self.cpb_mlp(self.relative_coords_table).view(-1, self.num_heads)
        bias = table[self.relative_position_index.view(-1)].view(area, area, -1)  # type: ignore[operator]
        return 16 * torch.sigmoid(bias.permute(2, 0, 1).contiguous())


class SwinCrHost(InteractingAttention, swin_transformer_v2_cr.WindowMultiHeadAttention):
    """``timm.models.swin_transformer_v2_cr.WindowMultiHeadAttention`` whose heads interact; (images · windows, N, dim)
    in and out.

    Swin v2 as Christoph Reich wrote it: cosine logits under a learned scale, a bias from an MLP over offsets.
    """

    in_projection = "qkv"
    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS, Capability.MASK})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        return attn.num_heads, attn.in_features // attn.num_heads  # type: ignore

    def read(self, x: Tensor, mask: Tensor | None = None) -> Heads:
        return by_cosines(
            self,
            x,
            self.packed(x),
            bias=self._relative_positional_encodings().squeeze(0),
            window_mask=mask,
            grid=(self.window_size[0], self.window_size[1]),
        )


class DaVitHost(InteractingAttention, davit.WindowAttention):
    """``timm.models.davit.WindowAttention`` whose heads interact; (images · windows, N, dim) in and out.

    Attention over channels, in every other block, is left as it is.
    """

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


# Windows lie image by image. timm 1.0.26 gives them the queries of image 0, 1, 2 ... in turn, later versions those of
# their image; each model must stay what it is.
_IMAGE_BY_IMAGE = "repeat_interleave" in gcvit.WindowAttentionGlobal.forward.__code__.co_names


def _of_every_window(queries: Tensor, windows: int) -> Tensor:
    if _IMAGE_BY_IMAGE:
        return queries.repeat_interleave(windows, dim=0)
    return queries.repeat(windows, *[1] * (queries.dim() - 1))


class GcVitHost(InteractingAttention, gcvit.WindowAttentionGlobal):
    """``timm.models.gcvit.WindowAttentionGlobal`` whose heads interact; (images · windows, N, dim) in and out.

    Queries may be one window of the whole image; a bias of offsets.
    """

    gives_grid = True

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.GRID, Capability.BIAS})

    def read(self, x: Tensor, q_global: Tensor | None = None) -> Heads:
        heads = self.qkv(x).unflatten(-1, (-1, self.num_heads, self.head_dim))
        if self.use_global and q_global is not None:
            k, v = heads.unbind(2)
            q = _of_every_window(q_global, x.shape[0] // q_global.shape[0])
            q = q.reshape(*x.shape[:2], self.num_heads, self.head_dim)
        else:
            q, k, v = heads.unbind(2)
        return Heads(
            x,
            q,
            k,
            v,
            self.scale,
            bias=head_bias(self.rel_pos.get_bias()),
            grid=(self.window_size[0], self.window_size[1]),
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )

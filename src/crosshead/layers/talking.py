"""Talking heads that overlap, as a module that takes the place of timm's ``TalkingHeadAttn`` in CaiT."""

from typing import Any

import torch
from timm.models.cait import TalkingHeadAttn
from torch import Tensor, nn

from ..ops.checks import check_dropout, check_head_width, check_overlap
from ..ops.talking import talking_heads_attention, talking_heads_weights
from ..ops.talking.fast import Mode
from .overlapped import Init, widen_projection


class OverlappedTalkingHeadAttention(nn.Module):
    """Talking-heads attention (arXiv 2003.02436, as in CaiT) on overlapped heads (MOHSA, arXiv 2410.14874).

    The constructor's contract is that of ``timm.models.cait.TalkingHeadAttn``, and so are the names of the
    parameters: ``proj_l`` mixes the heads' logits, ``proj_w`` their weights. Tokens (B, N, dim) in and out.

    Args:
        dim: width of the tokens.
        num_heads: heads h, each ``dim / num_heads`` wide.
        qkv_bias: whether the projection to queries, keys and values has a bias.
        attn_drop, proj_drop: dropout rates of the mixed attention weights and of the result.
        overlap: channels that a head borrows from each neighbour, 0 to d. Only the projection grows with it.
        learn_gain: learned factors of the borrowed channels of the queries, as in ``OverlappedAttention``.
        mode: how attention is computed, see ``crosshead.ops.talking.talking_heads_attention``.

    Raises:
        ValueError: for a width that the heads don't divide, an overlap or a rate out of range.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        device: Any = None,
        dtype: Any = None,
        *,
        overlap: int = 0,
        learn_gain: bool = False,
        mode: Mode = "auto",
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.num_heads = num_heads
        self.head_dim = check_head_width(dim, num_heads)
        self.overlap = check_overlap(overlap, self.head_dim)
        self.scale = self.head_dim**-0.5
        self.mode: Mode = mode

        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias, **factory)
        self.attn_drop = nn.Dropout(check_dropout(attn_drop))
        self.proj = nn.Linear(dim + 2 * overlap * num_heads, dim, **factory)
        self.proj_l = nn.Linear(num_heads, num_heads, **factory)
        self.proj_w = nn.Linear(num_heads, num_heads, **factory)
        self.proj_drop = nn.Dropout(check_dropout(proj_drop))
        gains = num_heads * 2 * overlap if learn_gain and num_heads > 1 else 0
        self.borrow_gain = nn.Parameter(torch.zeros(gains, **factory)) if gains else None

    @classmethod
    def from_attention(
        cls, attn: TalkingHeadAttn, *, overlap: int, init: Init
    ) -> "OverlappedTalkingHeadAttention":
        """Overlapped talking heads in place of ``attn``, whose submodules and weights go on serving.

        ``init`` as in ``OverlappedAttention.from_attention``.
        """
        weight = attn.proj.weight
        layer = cls(
            attn.qkv.in_features,
            attn.num_heads,
            overlap=overlap,
            learn_gain=init == "preserve",
            device=weight.device,
            dtype=weight.dtype,
        )
        layer.scale = attn.scale
        for name in ("qkv", "proj_l", "proj_w", "attn_drop", "proj_drop"):
            setattr(layer, name, getattr(attn, name))
        widen_projection(attn.proj, layer.proj, attn.num_heads, overlap, init)
        return layer.train(attn.training)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, dim) -> (B, N, dim)."""
        dropout_p = self.attn_drop.p if self.training else 0.0
        heads = talking_heads_attention(
            self._packed(x), **self._operands(), dropout_p=dropout_p, mode=self.mode
        )
        return self.proj_drop(self.proj(heads))

    def attention_weights(self, x: Tensor) -> Tensor:
        """The mixed attention weights (B, h, N, N) for tokens (B, N, dim), which ``forward`` never keeps."""
        return talking_heads_weights(self._packed(x), **self._operands())

    def _packed(self, x: Tensor) -> Tensor:
        return self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))

    def _operands(self) -> dict[str, Any]:
        gain = self.borrow_gain
        return {
            "pre_weight": self.proj_l.weight,
            "pre_bias": self.proj_l.bias,
            "post_weight": self.proj_w.weight,
            "post_bias": self.proj_w.bias,
            "overlap": self.overlap,
            "scale": self.scale,
            "borrow_gain": None if gain is None else gain.view(self.num_heads, 2 * self.overlap),
        }

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, head_dim={self.head_dim}, overlap={self.overlap}"

"""Overlapped heads in windows, as a module that takes the place of timm's ``WindowAttention`` in Swin."""

from typing import Any

import torch
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from ..ops.checks import check_dropout, check_head_width, check_overlap
from ..ops.overlap import overlapped_attention_weights, overlapped_window_attention
from ..ops.overlap.windowed import window_bias
from .overlapped import Init, widen_projection


class OverlappedWindowAttention(WindowAttention):
    """Window attention with overlapped heads (MOHSA, arXiv 2410.14874; Swin, arXiv 2103.14030).

    It is timm's module, with its parameters, relative position bias and ``set_window_size``; what differs is how the
    heads attend, and the projection's inputs. Windows (images · windows, N, dim) in and out.

    Args:
        dim: width of the tokens.
        num_heads: heads h.
        head_dim: head width d; ``dim / num_heads`` unless given.
        window_size: side of the windows, or (height, width).
        qkv_bias: whether the projection to queries, keys and values has a bias.
        attn_drop, proj_drop: dropout rates of the attention weights and of the result.
        overlap: channels that a head borrows from each neighbour, 0 to d. Only the projection grows with it.
        learn_gain: learned factors of the borrowed channels of the queries, as in ``OverlappedAttention``.

    Raises:
        ValueError: for a width that the heads don't divide, an overlap or a rate out of range.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None = None,
        window_size: int | tuple[int, int] = 7,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        device: Any = None,
        dtype: Any = None,
        *,
        overlap: int = 0,
        learn_gain: bool = False,
    ) -> None:
        width = check_head_width(dim, num_heads) if head_dim is None else head_dim
        check_overlap(overlap, width)
        rates = check_dropout(attn_drop), check_dropout(proj_drop)
        super().__init__(dim, num_heads, width, window_size, qkv_bias, *rates, device=device, dtype=dtype)
        self.head_dim, self.overlap = width, overlap
        self.proj = nn.Linear(num_heads * (width + 2 * overlap), dim, device=device, dtype=dtype)
        gains = num_heads * 2 * overlap if learn_gain and num_heads > 1 else 0
        self.borrow_gain = nn.Parameter(torch.zeros(gains, device=device, dtype=dtype)) if gains else None

    @classmethod
    def from_attention(
        cls, attn: WindowAttention, *, overlap: int, init: Init
    ) -> "OverlappedWindowAttention":
        """Overlapped heads in place of ``attn``, whose submodules, weights and bias table go on serving.

        ``init`` as in ``OverlappedAttention.from_attention``.
        """
        weight = attn.proj.weight
        layer = cls(
            attn.dim,
            attn.num_heads,
            head_dim=attn.qkv.out_features // 3 // attn.num_heads,
            window_size=attn.window_size,
            overlap=overlap,
            learn_gain=init == "preserve",
            device=weight.device,
            dtype=weight.dtype,
        )
        layer.scale = attn.scale
        for name in ("qkv", "attn_drop", "proj_drop", "relative_position_bias_table"):
            setattr(layer, name, getattr(attn, name))
        widen_projection(attn.proj, layer.proj, attn.num_heads, overlap, init)
        return layer.train(attn.training)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Windows (images · windows, N, dim) -> the same; ``mask`` (windows, N, N) is added to the logits."""
        heads = overlapped_window_attention(
            self._packed(x),
            self.overlap,
            self._get_rel_pos_bias().squeeze(0),
            mask=mask,
            dropout_p=self.attn_drop.p if self.training else 0.0,
            scale=self.scale,
            borrow_gain=self._gain(),
        )
        return self.proj_drop(self.proj(heads))

    def attention_weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The attention weights (images · windows, h, N, N) of windows (images · windows, N, dim)."""
        bias = window_bias(self._get_rel_pos_bias().squeeze(0), mask, (len(x), self.num_heads, x.shape[1]))
        return overlapped_attention_weights(
            self._packed(x),
            self.overlap,
            attn_mask=bias.repeat(len(x) // len(bias), 1, 1, 1),
            scale=self.scale,
            borrow_gain=self._gain(),
        )

    def _packed(self, x: Tensor) -> Tensor:
        return self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))

    def _gain(self) -> Tensor | None:
        return None if self.borrow_gain is None else self.borrow_gain.view(self.num_heads, 2 * self.overlap)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, head_dim={self.head_dim}, overlap={self.overlap}"

"""Attention with overlapped heads as a module that takes the place of timm's ``Attention``."""

from typing import Any, Literal

import torch
from timm.layers import Attention, trunc_normal_
from torch import Tensor, nn

from ..ops.checks import check_dropout, check_head_width, check_overlap
from ..ops.overlap import overlapped_attention, overlapped_attention_weights

Init = Literal["preserve", "paper"]


class OverlappedAttention(nn.Module):
    """Multi-overlapped-head self-attention, MOHSA (arXiv 2410.14874, section 3).

    The constructor's contract is that of ``timm.layers.Attention``; what is new is ``overlap``.
    Tokens (B, N, dim) in, tokens (B, N, dim_out) out.

    Args:
        dim: width of the tokens.
        num_heads: heads h.
        attn_head_dim: head width d; ``dim / num_heads`` unless given.
        dim_out: width of the result; ``dim`` unless given.
        qkv_bias, proj_bias: whether the projections have biases.
        qk_norm: normalise each head's queries and keys, before they overlap, with ``norm_layer(head_dim)``.
        attn_drop, proj_drop: dropout rates of the attention weights and of the result.
        norm_layer: the class that ``qk_norm`` uses.
        overlap: channels that a head borrows from each neighbour, 0 to d. Only the projection grows with it,
            to ``h·(d + 2·overlap)`` inputs.
        learn_gain: give the borrowed channels of the queries learned factors, which start at 0: the logits are then
            those of plain attention until they have learned otherwise. The paper has none.

    Raises:
        ValueError: for widths that the heads don't divide, an overlap out of range, a rate out of range, or an option
            of timm's module that has no meaning here (``scale_norm``, ``gated``).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        attn_head_dim: int | None = None,
        dim_out: int | None = None,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        scale_norm: bool = False,
        proj_bias: bool = True,
        gated: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        norm_layer: type[nn.Module] | None = None,
        device: Any = None,
        dtype: Any = None,
        *,
        overlap: int = 0,
        learn_gain: bool = False,
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        head_dim = check_head_width(dim, num_heads) if attn_head_dim is None else attn_head_dim
        for option, on in (("scale_norm", scale_norm), ("gated", gated)):
            if on:
                raise ValueError(f"overlapped heads have no {option}; leave {option}=False")
        if qk_norm and norm_layer is None:
            raise ValueError("qk_norm=True needs norm_layer, the class of the norm; pass torch.nn.LayerNorm")
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.overlap = check_overlap(overlap, head_dim)
        self.scale = head_dim**-0.5

        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=qkv_bias, **factory)
        self.q_norm = norm_layer(head_dim, **factory) if qk_norm and norm_layer else nn.Identity()
        self.k_norm = norm_layer(head_dim, **factory) if qk_norm and norm_layer else nn.Identity()
        self.attn_drop = nn.Dropout(check_dropout(attn_drop))
        self.proj = nn.Linear(num_heads * (head_dim + 2 * overlap), dim_out or dim, bias=proj_bias, **factory)
        self.proj_drop = nn.Dropout(check_dropout(proj_drop))
        # With one head there is nothing to borrow and so nothing to learn. One axis, so that optimizers that spare
        # 1-d parameters the weight decay spare it too: decay would pull the heads apart.
        gains = num_heads * 2 * overlap if learn_gain and num_heads > 1 else 0
        self.borrow_gain = nn.Parameter(torch.zeros(gains, **factory)) if gains else None

    @classmethod
    def from_attention(cls, attn: Attention, *, overlap: int, init: Init) -> "OverlappedAttention":
        """Overlapped heads in place of ``attn``, whose submodules and weights go on serving.

        ``init="preserve"``: the same outputs as ``attn``, exactly; the projection's new columns and the gains start
        at 0 and both get a gradient. ``init="paper"``: no gains, and new columns as timm initialises a projection.
        """
        for option in ("norm", "gate"):
            if not isinstance(getattr(attn, option, None), (nn.Identity, type(None))):
                name = {"norm": "scale_norm", "gate": "gated"}[option]
                raise ValueError(
                    f"timm's Attention with {name}=True can't overlap its heads: it works on all heads' channels at "
                    f"once, whose number changes; use a model with {name}=False"
                )
        weight = attn.proj.weight
        layer = cls(
            attn.qkv.in_features,
            attn.num_heads,
            attn_head_dim=attn.head_dim,
            dim_out=attn.proj.out_features,
            proj_bias=attn.proj.bias is not None,
            overlap=overlap,
            learn_gain=init == "preserve",
            device=weight.device,
            dtype=weight.dtype,
        )
        layer.scale = attn.scale
        for name in ("qkv", "q_norm", "k_norm", "attn_drop", "proj_drop"):
            setattr(layer, name, getattr(attn, name))
        widen_projection(attn.proj, layer.proj, attn.num_heads, overlap, init)
        return layer.train(attn.training)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Tokens (B, N, dim) -> (B, N, dim_out); masks as ``crosshead.ops.overlap.overlapped_attention``."""
        x = overlapped_attention(
            self._packed(x),
            self.overlap,
            attn_mask=attn_mask,
            is_causal=is_causal,
            dropout_p=self.attn_drop.p if self.training else 0.0,
            scale=self.scale,
            borrow_gain=self._gain(),
        )
        return self.proj_drop(self.proj(x))

    def attention_weights(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """The attention weights (B, h, N, N) for tokens (B, N, dim), which ``forward`` never forms."""
        return overlapped_attention_weights(
            self._packed(x),
            self.overlap,
            attn_mask=attn_mask,
            is_causal=is_causal,
            scale=self.scale,
            borrow_gain=self._gain(),
        )

    def _packed(self, x: Tensor) -> Tensor:
        """(B, N, 3, h, d): queries and keys normalised where the layer does so."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        if isinstance(self.q_norm, nn.Identity) and isinstance(self.k_norm, nn.Identity):
            return qkv
        q, k, v = qkv.unbind(2)
        return torch.stack([self.q_norm(q), self.k_norm(k), v], dim=2)

    def _gain(self) -> Tensor | None:
        return None if self.borrow_gain is None else self.borrow_gain.view(self.num_heads, 2 * self.overlap)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, head_dim={self.head_dim}, overlap={self.overlap}"


@torch.no_grad()
def widen_projection(old: nn.Linear, new: nn.Linear, num_heads: int, overlap: int, init: Init) -> None:
    """Fills ``new``, whose inputs are overlapped heads, from ``old``, whose inputs are plain ones.

    The columns that meet a head's own channels are copied; those that meet borrowed ones are 0 (``preserve``) or
    drawn anew (``paper``).
    """
    columns = new.weight.unflatten(1, (num_heads, -1))
    head_dim = columns.shape[-1] - 2 * overlap
    if init == "preserve":
        columns.zero_()
    else:
        trunc_normal_(new.weight, std=0.02)
    columns[..., overlap : overlap + head_dim] = old.weight.unflatten(1, (num_heads, head_dim))
    if old.bias is not None:
        new.bias.copy_(old.bias)
    new.requires_grad_(old.weight.requires_grad)

"""Attention with interacting heads from the arguments of timm's modules, for models that are built with them."""

from typing import Any

import torch
from timm.layers import Attention
from timm.models.cait import TalkingHeadAttn
from timm.models.swin_transformer import WindowAttention
from torch import nn

from ..ops.checks import check_dropout, check_head_width
from ..ops.interactive import Backend
from ..ops.talking import Backend as TalkingBackend
from .attention import Init, InteractingAttention, from_attention
from .interactions.interactive import Interactive
from .interactions.overlap import Overlap
from .interactions.talking import Talking
from .token_grid import TokenGrid


def overlapped_attention_layer(
    dim: int,
    num_heads: int = 8,
    attn_head_dim: int | None = None,
    dim_out: int | None = None,
    qkv_bias: bool = False,
    qk_norm: bool = False,
    scale_norm: bool = False,
    proj_bias: bool = True,
    *,
    overlap: int = 0,
    learn_gain: bool = False,
    attn_drop: float = 0.0,
    proj_drop: float = 0.0,
    norm_layer: type[nn.Module] | None = None,
    gated: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> InteractingAttention:
    """``timm.layers.Attention`` with overlapped heads (``Overlap``); its arguments, and:

    Args:
        overlap: channels that a head borrows from each neighbour, 0 to d.
        learn_gain: start as plain attention, with learned gains of what is borrowed (``init="preserve"``).

    Raises:
        ValueError: for widths that the heads don't divide, or an overlap or a rate out of range.
    """
    attn = _plain(
        dim,
        num_heads,
        attn_head_dim,
        dim_out,
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        scale_norm=scale_norm,
        proj_bias=proj_bias,
        norm_layer=norm_layer,
        gated=gated,
        **_rates_and_place(attn_drop, proj_drop, device, dtype),
    )
    return from_attention(attn, Overlap(overlap), init=_init(learn_gain))


def overlapped_talking_head_attention_layer(
    dim: int,
    num_heads: int = 8,
    qkv_bias: bool = False,
    *,
    overlap: int = 0,
    learn_gain: bool = False,
    mode: TalkingBackend = "auto",
    attn_drop: float = 0.0,
    proj_drop: float = 0.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> InteractingAttention:
    """``timm.models.cait.TalkingHeadAttn`` with overlapped heads; ``mode`` as in ``Talking``, the rest as
    ``overlapped_attention_layer``."""
    check_head_width(dim, num_heads)
    place = _rates_and_place(attn_drop, proj_drop, device, dtype)
    attn = TalkingHeadAttn(dim, num_heads, qkv_bias, **place)
    return from_attention(attn, Talking(overlap, mode), init=_init(learn_gain))


def overlapped_window_attention_layer(
    dim: int,
    num_heads: int,
    head_dim: int | None = None,
    window_size: int | tuple[int, int] = 7,
    qkv_bias: bool = True,
    *,
    overlap: int = 0,
    learn_gain: bool = False,
    attn_drop: float = 0.0,
    proj_drop: float = 0.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> InteractingAttention:
    """``timm.models.swin_transformer.WindowAttention`` with overlapped heads; as ``overlapped_attention_layer``."""
    width = check_head_width(dim, num_heads) if head_dim is None else head_dim
    place = _rates_and_place(attn_drop, proj_drop, device, dtype)
    attn = WindowAttention(dim, num_heads, width, window_size, qkv_bias, **place)
    return from_attention(attn, Overlap(overlap), init=_init(learn_gain))


def interactive_attention_layer(
    dim: int,
    num_heads: int = 8,
    attn_head_dim: int | None = None,
    dim_out: int | None = None,
    qkv_bias: bool = False,
    qk_norm: bool = False,
    scale_norm: bool = False,
    proj_bias: bool = True,
    *,
    landmarks: int | tuple[int, int] = 7,
    interaction: bool = True,
    mode: Backend = "auto",
    num_prefix_tokens: int = 0,
    token_grid: TokenGrid | None = None,
    attn_drop: float = 0.0,
    proj_drop: float = 0.0,
    norm_layer: type[nn.Module] | None = None,
    gated: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> InteractingAttention:
    """``timm.layers.Attention`` with interactive heads (``Interactive``); its arguments, and:

    Args:
        landmarks, interaction, mode: see ``Interactive``.
        num_prefix_tokens: tokens before those on the grid, such as a class token.
        token_grid: answers with the grid where ``forward`` is not given one; a square is assumed without it.

    Raises:
        ValueError: as ``overlapped_attention_layer``, and for landmarks below 1.
    """
    if num_prefix_tokens < 0:
        raise ValueError(f"num_prefix_tokens must be at least 0, got {num_prefix_tokens}")
    attn = _plain(
        dim,
        num_heads,
        attn_head_dim,
        dim_out,
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        scale_norm=scale_norm,
        proj_bias=proj_bias,
        norm_layer=norm_layer,
        gated=gated,
        **_rates_and_place(attn_drop, proj_drop, device, dtype),
    )
    return from_attention(
        attn,
        Interactive(landmarks, interaction, mode),
        init="paper",
        token_grid=token_grid,
        num_prefix_tokens=num_prefix_tokens,
    )


def _plain(
    dim: int, num_heads: int, attn_head_dim: int | None, dim_out: int | None, **kwargs: Any
) -> Attention:
    if attn_head_dim is None:
        check_head_width(dim, num_heads)
    if (kwargs["qk_norm"] or kwargs["scale_norm"]) and kwargs["norm_layer"] is None:
        raise ValueError(
            "qk_norm and scale_norm need norm_layer, the class of the norm; pass torch.nn.LayerNorm"
        )
    if not kwargs["gated"]:  # timm knows the gate from 1.0.28 on
        del kwargs["gated"]
    return Attention(dim, num_heads, attn_head_dim, dim_out, **kwargs)


def _rates_and_place(
    attn_drop: float, proj_drop: float, device: torch.device | str | None, dtype: torch.dtype | None
) -> dict[str, Any]:
    """What all of timm's modules take, checked."""
    rates = {"attn_drop": check_dropout(attn_drop), "proj_drop": check_dropout(proj_drop)}
    place = {"device": device, "dtype": dtype}
    return rates | {name: value for name, value in place.items() if value is not None}


def _init(learn_gain: bool) -> Init:
    return "preserve" if learn_gain else "paper"

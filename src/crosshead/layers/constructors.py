"""Attention with interacting heads from the arguments of timm's modules, for models that are built with them."""

from typing import Any

from timm.layers import Attention
from timm.models.cait import TalkingHeadAttn
from timm.models.swin_transformer import WindowAttention

from ..ops.checks import check_dropout, check_head_width
from ..ops.interactive import Backend
from ..ops.talking import Backend as TalkingBackend
from .attention import Init, InteractingAttention, from_attention
from .interactions.interactive import Interactive
from .interactions.overlap import Overlap
from .interactions.talking import Talking
from .token_grid import TokenGrid


def OverlappedAttention(
    *args: Any, overlap: int = 0, learn_gain: bool = False, **kwargs: Any
) -> InteractingAttention:
    """``timm.layers.Attention`` with overlapped heads (``Overlap``); its arguments, and:

    Args:
        overlap: channels that a head borrows from each neighbour, 0 to d.
        learn_gain: start as plain attention, with learned gains of what is borrowed (``init="preserve"``).

    Raises:
        ValueError: for widths that the heads don't divide, an overlap or a rate out of range, or an option that has
            no meaning here.
    """
    return from_attention(_plain(*args, **kwargs), Overlap(overlap), init=_init(learn_gain))


def OverlappedTalkingHeadAttention(
    dim: int,
    num_heads: int = 8,
    *args: Any,
    overlap: int = 0,
    learn_gain: bool = False,
    mode: TalkingBackend = "auto",
    **kwargs: Any,
) -> InteractingAttention:
    """``timm.models.cait.TalkingHeadAttn`` with overlapped heads; ``mode`` as in ``Talking``."""
    check_head_width(dim, num_heads)
    attn = TalkingHeadAttn(dim, num_heads, *args, **_checked(kwargs))
    return from_attention(attn, Talking(overlap, mode), init=_init(learn_gain))


def OverlappedWindowAttention(
    dim: int,
    num_heads: int,
    head_dim: int | None = None,
    *args: Any,
    overlap: int = 0,
    learn_gain: bool = False,
    **kwargs: Any,
) -> InteractingAttention:
    """``timm.models.swin_transformer.WindowAttention`` with overlapped heads; as ``OverlappedAttention``."""
    width = check_head_width(dim, num_heads) if head_dim is None else head_dim
    attn = WindowAttention(dim, num_heads, width, *args, **_checked(kwargs))
    return from_attention(attn, Overlap(overlap), init=_init(learn_gain))


def InteractiveAttention(
    *args: Any,
    landmarks: int | tuple[int, int] = 7,
    interaction: bool = True,
    mode: Backend = "auto",
    num_prefix_tokens: int = 0,
    token_grid: TokenGrid | None = None,
    **kwargs: Any,
) -> InteractingAttention:
    """``timm.layers.Attention`` with interactive heads (``Interactive``); its arguments, and:

    Args:
        landmarks, interaction, mode: see ``Interactive``.
        num_prefix_tokens: tokens before those on the grid, such as a class token.
        token_grid: answers with the grid where ``forward`` is not given one; a square is assumed without it.

    Raises:
        ValueError: as ``OverlappedAttention``, and for landmarks below 1.
    """
    if num_prefix_tokens < 0:
        raise ValueError(f"num_prefix_tokens must be at least 0, got {num_prefix_tokens}")
    return from_attention(
        _plain(*args, **kwargs),
        Interactive(landmarks, interaction, mode),
        init="paper",
        token_grid=token_grid,
        num_prefix_tokens=num_prefix_tokens,
    )


def _plain(
    dim: int, num_heads: int = 8, attn_head_dim: int | None = None, *args: Any, **kwargs: Any
) -> Attention:
    if attn_head_dim is None:
        check_head_width(dim, num_heads)
    if (kwargs.get("qk_norm") or kwargs.get("scale_norm")) and kwargs.get("norm_layer") is None:
        raise ValueError(
            "qk_norm and scale_norm need norm_layer, the class of the norm; pass torch.nn.LayerNorm"
        )
    return Attention(dim, num_heads, attn_head_dim, *args, **_checked(kwargs))


def _checked(kwargs: dict[str, Any]) -> dict[str, Any]:
    for rate in ("attn_drop", "proj_drop"):
        check_dropout(kwargs.get(rate, 0.0))
    return kwargs


def _init(learn_gain: bool) -> Init:
    return "preserve" if learn_gain else "paper"

"""Kinds of attention module, a file each: how queries, keys and values are made, and what becomes of the result."""

from timm.layers import Attention
from timm.models.cait import TalkingHeadAttn
from timm.models.swin_transformer import WindowAttention

from ..registry import register_host
from .plain import PlainHost
from .talking import TalkingHost
from .window import WindowHost

__all__ = ["PlainHost", "TalkingHost", "WindowHost"]

register_host(Attention, PlainHost)
register_host(TalkingHeadAttn, TalkingHost)
register_host(WindowAttention, WindowHost)

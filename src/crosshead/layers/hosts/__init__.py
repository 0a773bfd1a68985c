"""Kinds of attention module, a file each: how queries, keys and values are made, and what becomes of the result."""

from timm import layers
from timm.models import (
    beit,
    cait,
    eva,
    fastvit,
    maxxvit,
    metaformer,
    swin_transformer,
    swin_transformer_v2,
    tiny_vit,
    vision_transformer_relpos,
    volo,
)
from torch import nn

from ..registry import register_host
from .beit import BeitHost
from .eva import EvaHost
from .fastvit import FastVitHost
from .metaformer import MetaFormerHost
from .multihead import MultiheadHost
from .partition import PartitionHost
from .plain import PlainHost
from .relative import RelativeHost
from .rotary import RotaryHost
from .talking import TalkingHost
from .tinyvit import TinyVitHost
from .volo import VoloHost
from .window import WindowHost
from .window_v2 import WindowV2Host

__all__ = [
    "BeitHost",
    "EvaHost",
    "FastVitHost",
    "MetaFormerHost",
    "MultiheadHost",
    "PartitionHost",
    "PlainHost",
    "RelativeHost",
    "RotaryHost",
    "TalkingHost",
    "TinyVitHost",
    "VoloHost",
    "WindowHost",
    "WindowV2Host",
]

register_host(layers.Attention, PlainHost)
register_host(cait.TalkingHeadAttn, TalkingHost)
register_host(swin_transformer.WindowAttention, WindowHost)
register_host(layers.AttentionRope, RotaryHost)
register_host(eva.EvaAttention, EvaHost)
register_host(metaformer.Attention, MetaFormerHost)
register_host(maxxvit.AttentionCl, PartitionHost)
register_host(beit.Attention, BeitHost)
register_host(swin_transformer_v2.WindowAttention, WindowV2Host)
register_host(vision_transformer_relpos.RelPosAttention, RelativeHost)
register_host(fastvit.Attention, FastVitHost)
register_host(tiny_vit.Attention, TinyVitHost)
register_host(volo.Attention, VoloHost)
register_host(nn.MultiheadAttention, MultiheadHost)

"""Kinds of attention module, a file a family: how queries, keys and values are made, and what becomes of the result."""

from timm import layers, models
from torch import nn

from ..registry import register_host
from .biased import BeitHost, EfficientFormerHost, LevitHost, RelativeHost, TinyVitHost
from .cross_covariance import EdgeNextHost, XcaHost
from .multihead import MultiheadHost
from .parted import GroupedHost, HieraDetHost, HieraHost, NestHost, PartitionHost
from .plain import ConVitHost, MetaFormerHost, PlainHost, TalkingHost, TntHost
from .query_bias import MvitHost, SamHost
from .reduced import MultiQueryHost, NextVitHost, PvtHost, TwinsHost
from .rotary import EvaHost, RotaryHost
from .whole_maps import CoAtNetHost, FastVitHost, VisformerHost, VoloHost
from .windows import DaVitHost, GcVitHost, SwinCrHost, WindowHost, WindowV2Host

__all__ = [
    "BeitHost",
    "CoAtNetHost",
    "ConVitHost",
    "DaVitHost",
    "EdgeNextHost",
    "EfficientFormerHost",
    "EvaHost",
    "FastVitHost",
    "GcVitHost",
    "GroupedHost",
    "HieraDetHost",
    "HieraHost",
    "LevitHost",
    "MetaFormerHost",
    "MultiQueryHost",
    "MultiheadHost",
    "MvitHost",
    "NestHost",
    "NextVitHost",
    "PartitionHost",
    "PlainHost",
    "PvtHost",
    "RelativeHost",
    "RotaryHost",
    "SamHost",
    "SwinCrHost",
    "TalkingHost",
    "TinyVitHost",
    "TntHost",
    "TwinsHost",
    "VisformerHost",
    "VoloHost",
    "WindowHost",
    "WindowV2Host",
    "XcaHost",
]

register_host(layers.Attention, PlainHost)
register_host(models.cait.TalkingHeadAttn, TalkingHost)
register_host(models.swin_transformer.WindowAttention, WindowHost)
register_host(layers.AttentionRope, RotaryHost)
register_host(models.eva.EvaAttention, EvaHost)
register_host(models.metaformer.Attention, MetaFormerHost)
register_host(models.maxxvit.AttentionCl, PartitionHost)
register_host(models.beit.Attention, BeitHost)
register_host(models.swin_transformer_v2.WindowAttention, WindowV2Host)
register_host(models.vision_transformer_relpos.RelPosAttention, RelativeHost)
register_host(models.fastvit.Attention, FastVitHost)
register_host(models.tiny_vit.Attention, TinyVitHost)
register_host(models.volo.Attention, VoloHost)
register_host(nn.MultiheadAttention, MultiheadHost)
register_host(models.xcit.XCA, XcaHost)
register_host(models.edgenext.CrossCovarianceAttn, EdgeNextHost)
register_host(models.hiera.MaskUnitAttention, HieraHost)
register_host(models.hieradet_sam2.MultiScaleAttention, HieraDetHost)
register_host(models.nextvit.EfficientAttention, NextVitHost)
register_host(models.pvt_v2.Attention, PvtHost)
register_host(models.twins.GlobalSubSampleAttn, TwinsHost)
register_host(models.twins.LocallyGroupedAttn, GroupedHost)
register_host(models.mvitv2.MultiScaleAttention, MvitHost)
register_host(models.levit.Attention, LevitHost)
register_host(models.efficientformer.Attention, EfficientFormerHost)
register_host(models.maxxvit.Attention2d, CoAtNetHost)
register_host(models.visformer.Attention, VisformerHost)
register_host(layers.MultiQueryAttention2d, MultiQueryHost)
register_host(models.davit.WindowAttention, DaVitHost)
register_host(models.gcvit.WindowAttentionGlobal, GcVitHost)
register_host(models.swin_transformer_v2_cr.WindowMultiHeadAttention, SwinCrHost)
register_host(models.nest.Attention, NestHost)
register_host(models.vision_transformer_sam.Attention, SamHost)
register_host(models.tnt.Attention, TntHost)
register_host(models.convit.MHSA, ConVitHost)

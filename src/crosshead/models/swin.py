"""Swin with overlapped heads, and plain Swin beside it (MOHSA, arXiv 2410.14874, section 4; Swin, arXiv 2103.14030).

``mohsa_swin_*`` take ``overlap``, a schedule over the blocks of all stages (``crosshead.layers.schedule``);
``plain_swin_*`` are timm's models with the same widths and heads. Tiny is the paper's; Small and Base are Swin's.
Micro is our own sizing, for pictures of 8 to 64 pixels.
"""

from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import nn

from ..layers.schedule import ScheduleSpec
from ..swap import swap_attention


class OverlappedSwin(SwinTransformer):
    """timm's ``SwinTransformer`` with overlapped heads in every window.

    Args:
        overlap: the schedule of overlaps, blocks counted over all stages, such as ``index``, ``constant:6``.
        others: as ``timm.models.SwinTransformer``.
    """

    def __init__(self, *args: Any, overlap: ScheduleSpec = "index", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.overlap_report = swap_attention(self, "overlap", overlap=overlap, init="paper")


# timm's Swin drops a tenth of the paths unless told otherwise; these drop none, as all models here.
_SWIN = dict(patch_size=4, window_size=7, drop_path_rate=0.0)
TINY = dict(_SWIN, embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24))
SMALL = dict(_SWIN, embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24))
BASE = dict(_SWIN, embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32))
MICRO = dict(
    img_size=32,
    patch_size=2,
    window_size=4,
    embed_dim=48,
    depths=(2, 2, 2),
    num_heads=(3, 6, 12),
    drop_path_rate=0.0,
)

_SIZES = {f"{size}_patch4_window7_224": 224 for size in ("tiny", "small", "base")} | {
    "micro_patch2_window4_32": 32
}


def _cfg(size: int) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, size, size),
        "pool_size": (7, 7) if size == 224 else (4, 4),
        "crop_pct": 0.875 if size == 224 else 1.0,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "patch_embed.proj",
        "classifier": "head.fc",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs(
    {
        f"{family}_swin_{size}": _cfg(pixels)
        for family in ("mohsa", "plain")
        for size, pixels in _SIZES.items()
    }
)


def _create(cls: type[SwinTransformer], variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    stages = tuple(range(len(kwargs["depths"])))
    out_indices = kwargs.pop("out_indices", stages)
    return build_model_with_cfg(
        cls,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        **kwargs,
    )


_mohsa = partial(_create, OverlappedSwin)
_plain = partial(_create, SwinTransformer)


@register_model
def mohsa_swin_tiny_patch4_window7_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The paper's Swin-Tiny: width 96, blocks 2-2-6-2, heads 3-6-12-24 of 32, window 7."""
    return _mohsa("mohsa_swin_tiny_patch4_window7_224", pretrained, **{**TINY, **kwargs})


@register_model
def mohsa_swin_small_patch4_window7_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Swin-Small: width 96, blocks 2-2-18-2, heads 3-6-12-24 of 32, window 7."""
    return _mohsa("mohsa_swin_small_patch4_window7_224", pretrained, **{**SMALL, **kwargs})


@register_model
def mohsa_swin_base_patch4_window7_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Swin-Base: width 128, blocks 2-2-18-2, heads 4-8-16-32 of 32, window 7."""
    return _mohsa("mohsa_swin_base_patch4_window7_224", pretrained, **{**BASE, **kwargs})


@register_model
def mohsa_swin_micro_patch2_window4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Width 48, blocks 2-2-2, heads 3-6-12 of 16, patch 2, window 4: for 8 to 64 pixels."""
    return _mohsa("mohsa_swin_micro_patch2_window4_32", pretrained, **{**MICRO, **kwargs})


@register_model
def plain_swin_tiny_patch4_window7_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_swin_tiny_patch4_window7_224``."""
    return _plain("plain_swin_tiny_patch4_window7_224", pretrained, **{**TINY, **kwargs})


@register_model
def plain_swin_small_patch4_window7_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_swin_small_patch4_window7_224``."""
    return _plain("plain_swin_small_patch4_window7_224", pretrained, **{**SMALL, **kwargs})


@register_model
def plain_swin_base_patch4_window7_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_swin_base_patch4_window7_224``."""
    return _plain("plain_swin_base_patch4_window7_224", pretrained, **{**BASE, **kwargs})


@register_model
def plain_swin_micro_patch2_window4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_swin_micro_patch2_window4_32``."""
    return _plain("plain_swin_micro_patch2_window4_32", pretrained, **{**MICRO, **kwargs})

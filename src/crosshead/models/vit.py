"""Vision transformers with overlapped heads, and plain ones beside them (MOHSA, arXiv 2410.14874, section 4).

``mohsa_vit_*`` take ``overlap``, a schedule (``crosshead.layers.schedule``); ``plain_vit_*`` are timm's models with
the same widths and heads. Tiny and Small are the paper's, with 12 heads each and no bias in qkv. Micro and Mini are
our own sizing, for pictures of 8 to 64 pixels on a side.
"""

from functools import partial
from typing import Any

from timm.models import VisionTransformer, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from ..layers.schedule import ScheduleSpec
from ..swap import swap_attention


class OverlappedVisionTransformer(VisionTransformer):
    """timm's ``VisionTransformer`` with overlapped heads in every block.

    Args:
        overlap: the schedule of overlaps, such as ``index``, ``constant:6``, ``[0, 1, 2]``.
        norm_eps: epsilon of every LayerNorm; timm's 1e-6, the authors' 1e-5.
        others: as ``timm.models.VisionTransformer``.
    """

    def __init__(self, *args: Any, overlap: ScheduleSpec = "index", norm_eps: float = 1e-6, **kwargs: Any) -> None:
        kwargs.setdefault("norm_layer", partial(nn.LayerNorm, eps=norm_eps))
        super().__init__(*args, **kwargs)
        self.overlap_report = swap_attention(self, "overlap", overlap=overlap, init="paper")


TINY = dict(patch_size=16, embed_dim=192, depth=12, num_heads=12, qkv_bias=False)
SMALL = dict(patch_size=16, embed_dim=384, depth=12, num_heads=12, qkv_bias=False)
MICRO = dict(img_size=32, embed_dim=80, depth=6, num_heads=5, qkv_bias=False)
MINI = dict(img_size=32, embed_dim=192, depth=6, num_heads=12, qkv_bias=False)


def _cfg(size: int, **kwargs: Any) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, size, size),
        "pool_size": None,
        "crop_pct": 0.875 if size == 224 else 1.0,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
        **kwargs,
    }


_SIZES = {"tiny_patch16_224": 224, "small_patch16_224": 224}
_SIZES |= dict.fromkeys(("micro_patch2_32", "micro_patch4_32", "mini_patch2_32", "mini_patch4_32"), 32)

default_cfgs = generate_default_cfgs(
    {f"{family}_vit_{size}": _cfg(pixels) for family in ("mohsa", "plain") for size, pixels in _SIZES.items()}
)


def _create(cls: type[VisionTransformer], variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    out_indices = kwargs.pop("out_indices", 3)
    return build_model_with_cfg(
        cls,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        **kwargs,
    )


_mohsa = partial(_create, OverlappedVisionTransformer)
_plain = partial(_create, VisionTransformer)


@register_model
def mohsa_vit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The paper's ViT-Tiny: width 192, 12 blocks, 12 heads of 16."""
    return _mohsa("mohsa_vit_tiny_patch16_224", pretrained, **{**TINY, **kwargs})


@register_model
def mohsa_vit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The paper's ViT-Small: width 384, 12 blocks, 12 heads of 32."""
    return _mohsa("mohsa_vit_small_patch16_224", pretrained, **{**SMALL, **kwargs})


@register_model
def mohsa_vit_micro_patch2_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Width 80, 6 blocks, 5 heads of 16, patch 2: about half a million parameters, for 8 to 32 pixels."""
    return _mohsa("mohsa_vit_micro_patch2_32", pretrained, **{**MICRO, "patch_size": 2, **kwargs})


@register_model
def mohsa_vit_micro_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Width 80, 6 blocks, 5 heads of 16, patch 4: about half a million parameters, for 28 to 64 pixels."""
    return _mohsa("mohsa_vit_micro_patch4_32", pretrained, **{**MICRO, "patch_size": 4, **kwargs})


@register_model
def mohsa_vit_mini_patch2_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Width 192, 6 blocks, 12 heads of 16, patch 2: 2.7 million parameters, for 16 to 32 pixels."""
    return _mohsa("mohsa_vit_mini_patch2_32", pretrained, **{**MINI, "patch_size": 2, **kwargs})


@register_model
def mohsa_vit_mini_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Width 192, 6 blocks, 12 heads of 16, patch 4: 2.7 million parameters, for 28 to 64 pixels."""
    return _mohsa("mohsa_vit_mini_patch4_32", pretrained, **{**MINI, "patch_size": 4, **kwargs})


@register_model
def plain_vit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_vit_tiny_patch16_224``: the same 12 heads of 16, apart."""
    return _plain("plain_vit_tiny_patch16_224", pretrained, **{**TINY, **kwargs})


@register_model
def plain_vit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_vit_small_patch16_224``: the same 12 heads of 32, apart."""
    return _plain("plain_vit_small_patch16_224", pretrained, **{**SMALL, **kwargs})


@register_model
def plain_vit_micro_patch2_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_vit_micro_patch2_32``."""
    return _plain("plain_vit_micro_patch2_32", pretrained, **{**MICRO, "patch_size": 2, **kwargs})


@register_model
def plain_vit_micro_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_vit_micro_patch4_32``."""
    return _plain("plain_vit_micro_patch4_32", pretrained, **{**MICRO, "patch_size": 4, **kwargs})


@register_model
def plain_vit_mini_patch2_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_vit_mini_patch2_32``."""
    return _plain("plain_vit_mini_patch2_32", pretrained, **{**MINI, "patch_size": 2, **kwargs})


@register_model
def plain_vit_mini_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_vit_mini_patch4_32``."""
    return _plain("plain_vit_mini_patch4_32", pretrained, **{**MINI, "patch_size": 4, **kwargs})

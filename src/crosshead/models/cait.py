"""CaiT with overlapped heads, and plain CaiT beside it (MOHSA, arXiv 2410.14874, section 4; CaiT, arXiv 2103.17239).

``mohsa_cait_*`` take ``overlap``, a schedule over the patch blocks (``crosshead.layers.schedule``); their talking
heads overlap, and the class-attention blocks stay as they are. ``plain_cait_*`` have the same widths and heads.
XXS12 and XXS24 are the paper's, without bias in qkv. Micro is our own sizing, for pictures of 8 to 64 pixels.
"""

from functools import partial
from typing import Any

import torch
from timm.layers import PatchEmbed, resample_abs_pos_embed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.cait import Cait, checkpoint_filter_fn
from torch import nn

from ..layers.schedule import ScheduleSpec
from ..swap import swap_attention


class ResizableCait(Cait):
    """timm's ``Cait`` whose input size can change; epsilon of every LayerNorm is ``norm_eps``."""

    patch_embed: PatchEmbed

    def __init__(self, *args: Any, norm_eps: float = 1e-6, **kwargs: Any) -> None:
        kwargs.setdefault("norm_layer", partial(nn.LayerNorm, eps=norm_eps))
        super().__init__(*args, **kwargs)

    @torch.no_grad()
    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        """Takes images of another size, or cuts them into other patches; the position embedding is resampled."""
        old_grid = self.patch_embed.grid_size
        self.patch_embed.set_input_size(img_size=img_size, patch_size=patch_size)
        if self.patch_embed.grid_size != old_grid:
            resampled = resample_abs_pos_embed(
                self.pos_embed, self.patch_embed.grid_size, old_grid, num_prefix_tokens=0
            )
            self.pos_embed = nn.Parameter(resampled, requires_grad=self.pos_embed.requires_grad)
        for info in self.feature_info:
            info["reduction"] = self.patch_embed.feat_ratio()


class OverlappedCait(ResizableCait):
    """timm's ``Cait`` with overlapped talking heads in every patch block.

    Args:
        overlap: the schedule of overlaps, such as ``index``, ``constant:6``, ``[0, 1, 2]``.
        others: as ``ResizableCait``.
    """

    def __init__(self, *args: Any, overlap: ScheduleSpec = "index", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.overlap_report = swap_attention(self, "overlap", overlap=overlap, init="paper")


# LayerScale starts at 0.1 up to 18 blocks and at 1e-5 at 24 (CaiT, section 2).
XXS12 = dict(patch_size=16, embed_dim=192, depth=12, num_heads=4, qkv_bias=False, init_values=0.1)
XXS24 = dict(patch_size=16, embed_dim=192, depth=24, num_heads=4, qkv_bias=False, init_values=1e-5)
MICRO = dict(img_size=32, embed_dim=96, depth=6, num_heads=4, qkv_bias=False, init_values=0.1)

_SIZES = {"xxs12_224": 224, "xxs24_224": 224, "micro_patch2_32": 32, "micro_patch4_32": 32}


def _cfg(size: int) -> dict[str, Any]:
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
    }


default_cfgs = generate_default_cfgs(
    {
        f"{family}_cait_{size}": _cfg(pixels)
        for family in ("mohsa", "plain")
        for size, pixels in _SIZES.items()
    }
)


def _create(cls: type[Cait], variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    out_indices = kwargs.pop("out_indices", 3)
    return build_model_with_cfg(
        cls,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        **kwargs,
    )


_mohsa = partial(_create, OverlappedCait)
_plain = partial(_create, ResizableCait)


@register_model
def mohsa_cait_xxs12_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The paper's CaiT-XXS12: width 192, 12 patch blocks and 2 class blocks, 4 heads of 48."""
    return _mohsa("mohsa_cait_xxs12_224", pretrained, **{**XXS12, **kwargs})


@register_model
def mohsa_cait_xxs24_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The paper's CaiT-XXS24: width 192, 24 patch blocks and 2 class blocks, 4 heads of 48."""
    return _mohsa("mohsa_cait_xxs24_224", pretrained, **{**XXS24, **kwargs})


@register_model
def mohsa_cait_micro_patch2_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Width 96, 6 patch blocks and 2 class blocks, 4 heads of 24, patch 2: for 8 to 32 pixels."""
    return _mohsa("mohsa_cait_micro_patch2_32", pretrained, **{**MICRO, "patch_size": 2, **kwargs})


@register_model
def mohsa_cait_micro_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Width 96, 6 patch blocks and 2 class blocks, 4 heads of 24, patch 4: for 28 to 64 pixels."""
    return _mohsa("mohsa_cait_micro_patch4_32", pretrained, **{**MICRO, "patch_size": 4, **kwargs})


@register_model
def plain_cait_xxs12_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_cait_xxs12_224``."""
    return _plain("plain_cait_xxs12_224", pretrained, **{**XXS12, **kwargs})


@register_model
def plain_cait_xxs24_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_cait_xxs24_224``."""
    return _plain("plain_cait_xxs24_224", pretrained, **{**XXS24, **kwargs})


@register_model
def plain_cait_micro_patch2_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_cait_micro_patch2_32``."""
    return _plain("plain_cait_micro_patch2_32", pretrained, **{**MICRO, "patch_size": 2, **kwargs})


@register_model
def plain_cait_micro_patch4_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The baseline of ``mohsa_cait_micro_patch4_32``."""
    return _plain("plain_cait_micro_patch4_32", pretrained, **{**MICRO, "patch_size": 4, **kwargs})

"""Swin with overlapped heads, and plain Swin beside it (MOHSA, arXiv 2410.14874, section 4; Swin, arXiv 2103.14030).

``mohsa_swin_*`` take ``overlap``, a schedule over the blocks of all stages (``crosshead.layers.schedule``);
``plain_swin_*`` are timm's models with the same widths and heads. Tiny is the paper's; Small and Base are Swin's.
Micro is our own sizing, for pictures of 8 to 64 pixels.
"""

from typing import Any

from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn

from .starting_values import AUTHORS, check_weight_init
from .variants import OVERLAP, Family, Variant, default_cfg, register_variants


def mohsa_swin(*args: Any, weight_init: str = "", **kwargs: Any) -> SwinTransformer:
    """timm's ``SwinTransformer``; ``weight_init`` is ``authors``, or one of timm's names.

    The authors' Swin is Microsoft's; that it starts as Microsoft's does, and so as timm's by default (linear layers and
    position tables from a truncated normal of 0.02, their biases at 0), is assumed.
    """
    kwargs["weight_init"] = "" if check_weight_init(weight_init) == AUTHORS else weight_init
    return SwinTransformer(*args, **kwargs)


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


def _cfg(image_size: int) -> dict[str, Any]:
    grid = 7 if image_size == 224 else 4
    return default_cfg(image_size, "head.fc", "patch_embed.proj", pool_size=(grid, grid))


register_variants(
    __name__,
    {"mohsa": Family(mohsa_swin, OVERLAP), "plain": Family(SwinTransformer)},
    {
        "swin_tiny_patch4_window7_224": Variant(
            "The paper's Swin-Tiny: width 96, blocks 2-2-6-2, heads 3-6-12-24 of 32, window 7", 224, TINY
        ),
        "swin_small_patch4_window7_224": Variant(
            "Swin-Small: width 96, blocks 2-2-18-2, heads 3-6-12-24 of 32, window 7", 224, SMALL
        ),
        "swin_base_patch4_window7_224": Variant(
            "Swin-Base: width 128, blocks 2-2-18-2, heads 4-8-16-32 of 32, window 7", 224, BASE
        ),
        "swin_micro_patch2_window4_32": Variant(
            "Width 48, blocks 2-2-2, heads 3-6-12 of 16, patch 2, window 4: for 8 to 64 pixels", 32, MICRO
        ),
    },
    cfg=_cfg,
    filter_fn=checkpoint_filter_fn,
)

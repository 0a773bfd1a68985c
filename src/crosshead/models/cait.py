"""CaiT with overlapped heads, and plain CaiT beside it (MOHSA, arXiv 2410.14874, section 4; CaiT, arXiv 2103.17239).

``mohsa_cait_*`` take ``overlap``, a schedule over the patch blocks (``crosshead.layers.schedule``); their talking
heads overlap, and the class-attention blocks stay as they are. ``plain_cait_*`` have the same widths and heads.
XXS12 and XXS24 are the paper's, without bias in qkv. Micro is our own sizing, for pictures of 8 to 64 pixels.
"""

from functools import partial
from typing import Any

import torch
from timm.layers import PatchEmbed, resample_abs_pos_embed
from timm.models.cait import Cait, checkpoint_filter_fn
from torch import nn

from ..layers.schedule import ScheduleSpec
from ..swap import swap_attention
from .variants import Variant, default_cfg, register_variants


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

register_variants(
    __name__,
    {"mohsa": OverlappedCait, "plain": ResizableCait},
    {
        "cait_xxs12_224": Variant(
            "The paper's CaiT-XXS12: width 192, 12 patch blocks and 2 class blocks, 4 heads of 48", 224, XXS12
        ),
        "cait_xxs24_224": Variant(
            "The paper's CaiT-XXS24: width 192, 24 patch blocks and 2 class blocks, 4 heads of 48", 224, XXS24
        ),
        "cait_micro_patch2_32": Variant(
            "Width 96, 6 patch blocks and 2 class blocks, 4 heads of 24, patch 2: for 8 to 32 pixels",
            32,
            dict(MICRO, patch_size=2),
        ),
        "cait_micro_patch4_32": Variant(
            "Width 96, 6 patch blocks and 2 class blocks, 4 heads of 24, patch 4: for 28 to 64 pixels",
            32,
            dict(MICRO, patch_size=4),
        ),
    },
    cfg=partial(default_cfg, classifier="head", first_conv="patch_embed.proj"),
    filter_fn=checkpoint_filter_fn,
)

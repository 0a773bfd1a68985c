"""Vision transformers with overlapped heads, and plain ones beside them (MOHSA, arXiv 2410.14874, section 4).

``mohsa_vit_*`` take ``overlap``, a schedule (``crosshead.layers.schedule``); ``plain_vit_*`` are timm's models with
the same widths and heads. Tiny and Small are the paper's, with 12 heads each and no bias in qkv. Micro and Mini are
our own sizing, for pictures of 8 to 64 pixels on a side.
"""

from functools import partial
from typing import Any

from timm.models import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from .starting_values import AUTHORS, check_weight_init, draw_embeddings, start_projections
from .variants import OVERLAP, Family, Variant, default_cfg, register_variants


class MohsaVisionTransformer(VisionTransformer):
    """timm's ``VisionTransformer``, which can start as the MOHSA authors' does.

    Args:
        norm_eps: epsilon of every LayerNorm; timm's 1e-6, the authors' 1e-5.
        weight_init: ``authors`` for the values that the MOHSA authors' code starts from
            (``crosshead.models.starting_values``), or one of timm's names.
        others: as ``timm.models.VisionTransformer``.
    """

    def __init__(
        self,
        *args: Any,
        norm_eps: float = 1e-6,
        weight_init: str = "",
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("norm_layer", partial(nn.LayerNorm, eps=norm_eps))
        kwargs["weight_init"] = check_weight_init(weight_init)
        super().__init__(*args, **kwargs)

    def init_weights(self, mode: str = "", needs_reset: bool = True) -> None:
        """As timm's, with ``authors`` among the modes; timm calls it in its constructor and after ``to_empty``."""
        mode = mode or self.weight_init_mode
        super().init_weights("reset" if mode == AUTHORS else mode, needs_reset=needs_reset)
        if mode == AUTHORS:
            draw_embeddings(self)


TINY = dict(patch_size=16, embed_dim=192, depth=12, num_heads=12, qkv_bias=False)
SMALL = dict(patch_size=16, embed_dim=384, depth=12, num_heads=12, qkv_bias=False)
MICRO = dict(img_size=32, embed_dim=80, depth=6, num_heads=5, qkv_bias=False)
MINI = dict(img_size=32, embed_dim=192, depth=6, num_heads=12, qkv_bias=False)

register_variants(
    __name__,
    {"mohsa": Family(MohsaVisionTransformer, OVERLAP, start_projections), "plain": Family(VisionTransformer)},
    {
        "vit_tiny_patch16_224": Variant(
            "The paper's ViT-Tiny: width 192, 12 blocks, 12 heads of 16", 224, TINY
        ),
        "vit_small_patch16_224": Variant(
            "The paper's ViT-Small: width 384, 12 blocks, 12 heads of 32", 224, SMALL
        ),
        "vit_micro_patch2_32": Variant(
            "Width 80, 6 blocks, 5 heads of 16: half a million parameters, for 8 to 32 pixels",
            32,
            dict(MICRO, patch_size=2),
        ),
        "vit_micro_patch4_32": Variant(
            "Width 80, 6 blocks, 5 heads of 16: half a million parameters, for 28 to 64 pixels",
            32,
            dict(MICRO, patch_size=4),
        ),
        "vit_mini_patch2_32": Variant(
            "Width 192, 6 blocks, 12 heads of 16: 2.7 million parameters, for 16 to 32 pixels",
            32,
            dict(MINI, patch_size=2),
        ),
        "vit_mini_patch4_32": Variant(
            "Width 192, 6 blocks, 12 heads of 16: 2.7 million parameters, for 28 to 64 pixels",
            32,
            dict(MINI, patch_size=4),
        ),
    },
    cfg=partial(default_cfg, classifier="head", first_conv="patch_embed.proj"),
    filter_fn=checkpoint_filter_fn,
)

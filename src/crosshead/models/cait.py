"""CaiT with overlapped heads, and plain CaiT beside it (MOHSA, arXiv 2410.14874, section 4; CaiT, arXiv 2103.17239).

``mohsa_cait_*`` take ``overlap``, a schedule over the patch blocks (``crosshead.layers.schedule``); their talking
heads overlap, and the class blocks' don't. They are timm's CaiT otherwise, or with ``form="authors"`` that of the MOHSA
authors' code. ``plain_cait_*`` have the same widths and heads. XXS12 and XXS24 are the paper's, without bias in qkv.
Micro is our own sizing, for pictures of 8 to 64 pixels.
"""

from functools import partial
from typing import Any, Literal

import torch
from timm.layers import PatchEmbed, resample_abs_pos_embed
from timm.models.cait import Cait, checkpoint_filter_fn
from torch import nn

from .class_attention import TalkingClassAttention, TalkingClassBlock, talking_heads_without_bias
from .starting_values import AUTHORS, check_weight_init, start_cait, start_layer_scale, start_projections
from .variants import OVERLAP, Family, Variant, default_cfg, register_variants


class ResizableCait(Cait):
    """timm's ``Cait`` whose input size can change.

    Args:
        norm_eps: epsilon of every LayerNorm; timm's 1e-6, the authors' 1e-5.
        init_values: where LayerScale starts; by the network's depth, as in the CaiT paper, unless given.
        others: as ``timm.models.cait.Cait``.
    """

    patch_embed: PatchEmbed

    def __init__(
        self, *args: Any, norm_eps: float = 1e-6, init_values: float | None = None, **kwargs: Any
    ) -> None:
        kwargs.setdefault("norm_layer", partial(nn.LayerNorm, eps=norm_eps))
        if init_values is not None:
            kwargs["init_values"] = init_values
        super().__init__(*args, **kwargs)
        if init_values is None:
            start_layer_scale(self, by_block=False)

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


class MohsaCait(ResizableCait):
    """timm's ``Cait``, in the MOHSA authors' form where that is asked for.

    Args:
        form: ``timm``, or ``authors``: class blocks with talking heads that take the patches without a norm
            (``crosshead.models.class_attention``), and mixing without biases, as in the MOHSA authors' code. Their
            final norm sees the class token alone; here the patches pass it too, and change no class token by it.
        weight_init: ``authors`` for the values that their code starts from (``crosshead.models.starting_values``),
            LayerScale's block by block unless ``init_values`` is given; timm's otherwise.
        others: as ``ResizableCait``.

    Raises:
        ValueError: for a form or starting values that there are not.
    """

    def __init__(
        self,
        *args: Any,
        form: Literal["timm", "authors"] = "timm",
        weight_init: str = "",
        init_values: float | None = None,
        **kwargs: Any,
    ) -> None:
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        check_weight_init(weight_init, of_timm=("",))
        super().__init__(*args, init_values=init_values, **FORMS[form], **kwargs)
        if weight_init == AUTHORS:
            start_cait(self)
            if init_values is None:
                start_layer_scale(self, by_block=True)


# What builds the blocks in place of timm's own classes.
FORMS: dict[str, dict[str, Any]] = {
    "timm": {},
    "authors": {
        "attn_block": talking_heads_without_bias,
        "block_layers_token": TalkingClassBlock,
        "attn_block_token_only": TalkingClassAttention,
    },
}

XXS12 = dict(patch_size=16, embed_dim=192, depth=12, num_heads=4, qkv_bias=False)
XXS24 = dict(patch_size=16, embed_dim=192, depth=24, num_heads=4, qkv_bias=False)
MICRO = dict(img_size=32, embed_dim=96, depth=6, num_heads=4, qkv_bias=False)

register_variants(
    __name__,
    {"mohsa": Family(MohsaCait, OVERLAP, start_projections), "plain": Family(ResizableCait)},
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

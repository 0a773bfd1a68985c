"""A plain ViT that segments by itself: queries among its tokens in the last blocks, and no decoder.

In the manner of EoMT, "Your ViT is Secretly an Image Segmentation Model", Kerssies et al., arXiv 2503.19108.
"""

import math

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from .pyramid import Maps
from .segmenters import Segmenter
from .windowed_vit import WindowedViT


class QuerySegmenter(Segmenter):
    """Queries join the patches' tokens in the last blocks; a query's product with a pixel's features is its logit.

    Simpler than the paper's: there is one query a class (as in Segmenter, arXiv 2105.05633), in place of 100 that are
    matched to segments, and no masked attention in training. The losses are those of any segmenter's pixels.

    Args:
        maps: of a plain ViT whose last blocks don't ask where their tokens lie, as landmarks do.
        num_classes: without the one that is ignored.
        query_blocks: the last blocks, in which the queries are; the paper's are 3 of 12.
        stride: pixels a step of the logits, to which transposed convolutions bring the patches' grid; the patch size,
            or less by factors of 2.

    Raises:
        ValueError: for another backbone, or a number that doesn't fit it.
    """

    def __init__(self, maps: Maps, num_classes: int, *, query_blocks: int = 3, stride: int = 4) -> None:
        body = maps.body
        if not isinstance(body, WindowedViT):
            raise ValueError(
                "queries are for a plain ViT (timm's VisionTransformer); a backbone of stages takes semantic_fpn or "
                "upernet"
            )
        patch, depth = maps.strides[0], len(body.vit.blocks)
        halvings = math.log2(patch / stride) if stride > 0 else -1.0
        if halvings < 0 or halvings != int(halvings):
            raise ValueError(
                f"stride must be the patch's {patch} pixels, or a half, a quarter of it, got {stride}"
            )
        if not 1 <= query_blocks <= depth:
            raise ValueError(
                f"query_blocks must be from 1 to the {depth} blocks of the model, got {query_blocks}"
            )
        if body.asks_for_grids(depth - query_blocks):
            raise ValueError(
                "the attention of the last blocks asks where its tokens lie, and queries lie nowhere: leave them "
                "as they are (model.interaction.blocks), or take another interaction or head"
            )
        super().__init__(num_classes, stride)
        width = maps.channels[0]
        self.maps, self.query_blocks = maps, query_blocks
        self.queries = nn.Parameter(torch.randn(1, num_classes, width))
        self.norm = nn.LayerNorm(width)
        self.finer = nn.Sequential(*(_Doubling(width) for _ in range(int(halvings))))
        self.to_mask = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )

    def decode(self, images: Tensor) -> dict[str, Tensor]:
        maps, body = self.maps, self.maps.body
        padding = maps.padding(images.shape[-2:])
        padded = nn.functional.pad(images, padding) if any(padding) else images
        features, queries = body.with_queries(padded, self.queries, self.query_blocks)  # type: ignore[operator]
        pixels = self.finer(self.norm(features.movedim(1, -1)).movedim(-1, 1))
        masks = self.to_mask(self.norm(queries))
        # In float32, and scaled as attention's logits are.
        logits = torch.einsum("bcd,bdhw->bchw", masks.float(), pixels.float()) * masks.shape[-1] ** -0.5
        return {"logits": logits}

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def no_weight_decay(self) -> set[str]:
        """What the backbone spares, and the queries, as other tokens that are learned."""
        spared: set[str] = super().no_weight_decay()
        return spared | {"queries"}


class _Doubling(nn.Sequential):
    """(B, C, H, W) -> (B, C, 2H, 2W), as EoMT's blocks do it."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(width, width, 2, stride=2),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            LayerNorm2d(width),
        )

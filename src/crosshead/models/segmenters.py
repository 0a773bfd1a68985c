"""Segmenters: Semantic FPN, UPerNet with its auxiliary head, and a linear head; blocks of segmentation-models-pytorch.

arXiv 1901.02446, 1807.10221; the linear head is DINOv2's probe (arXiv 2304.07193), on features of a plain ViT.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..libraries import need
from ..ops.interactive.landmarks import pooling_matrix
from .dense import OnBackbone, check_options
from .pyramid import Maps, Pyramid


class Segmenter(OnBackbone):
    """What all share: images (B, C, H, W) of any size -> class logits, float32, on a grid of ``stride`` pixels.

    In evaluation ``forward`` gives logits (B, classes, h, w); in training a dict, ``logits`` and, of a model with an
    auxiliary head, ``auxiliary``. The grid covers the picture and the padding below and to the right of it:
    ``full_size`` brings logits to the picture's pixels.

    Attributes:
        stride: pixels a step of the grid.
        smallest_batch: images that training needs at once in a process.
    """

    smallest_batch = 1

    def __init__(self, num_classes: int, stride: int) -> None:
        super().__init__()
        self.num_classes, self.stride = num_classes, stride

    def forward(self, images: Tensor) -> Any:
        if self.training and len(images) < self.smallest_batch:
            raise ValueError(
                f"{type(self).__name__} normalises over the batch where its maps are one entry large: it trains on "
                f"{self.smallest_batch} images a process or more, got {len(images)}; raise data.batch_size"
            )
        outputs = {name: logits.float() for name, logits in self.decode(images).items()}
        return outputs if self.training else outputs["logits"]

    def decode(self, images: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError


class SemanticFPN(Segmenter):
    """Semantic FPN (Kirillov et al., arXiv 1901.02446): every level brought to the finest one's size, and summed.

    Args:
        pyramid: without extra levels.
        num_classes: without the one that is ignored.
        width: channels of the segmentation branch; a multiple of 32, for its group normalisation.
        dropout: of whole channels, before the classifier.
    """

    def __init__(self, pyramid: Pyramid, num_classes: int, *, width: int = 128, dropout: float = 0.1) -> None:
        super().__init__(num_classes, pyramid.strides[0])
        if width % 32:
            raise ValueError(
                f"width must be a multiple of 32, for the groups of its normalisation, got {width}"
            )
        blocks = need("segmentation_models_pytorch.decoders.fpn.decoder")
        self.pyramid = pyramid
        self.branches = nn.ModuleList(
            [
                blocks.SegmentationBlock(
                    pyramid.width, width, n_upsamples=int(math.log2(stride // self.stride))
                )
                for stride in pyramid.strides
            ]
        )
        self.merge = blocks.MergeBlock("add")
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def decode(self, images: Tensor) -> dict[str, Tensor]:
        levels = [branch(level) for branch, level in zip(self.branches, self.pyramid(images), strict=True)]
        return {"logits": self.classifier(self.dropout(self.merge(levels)))}


class UPerNet(Segmenter):
    """UPerNet (Xiao et al., arXiv 1807.10221), with an auxiliary head on the last stage but one.

    Args:
        maps: of a hierarchical backbone, three stages or more.
        num_classes: without the one that is ignored.
        width: channels of the decoder.
        auxiliary_width: channels of the auxiliary head.
        dropout: of whole channels, before the classifiers.
    """

    smallest_batch = 2

    def __init__(
        self,
        maps: Maps,
        num_classes: int,
        *,
        width: int = 512,
        auxiliary_width: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(num_classes, maps.strides[0])
        if len(maps.strides) < 3:
            raise ValueError(
                f"UPerNet wants a backbone of three stages or more, got {len(maps.strides)}; a plain ViT takes "
                "semantic_fpn or linear"
            )
        decoder = need("segmentation_models_pytorch.decoders.upernet.decoder").UPerNetDecoder
        self.maps = maps
        # smp counts the picture and a map of half its side as the first two; the decoder passes over both.
        self.decoder = decoder([0, 0, *maps.channels], len(maps.channels) + 1, width)
        for block in self.decoder.psp.blocks:
            block[0] = _Cells(block[0].output_size)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.auxiliary = nn.Sequential(
            nn.Conv2d(maps.channels[-2], auxiliary_width, 3, padding=1, bias=False),
            nn.BatchNorm2d(auxiliary_width),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
            nn.Conv2d(auxiliary_width, num_classes, 1),
        )

    def decode(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.maps(images)
        outputs = {"logits": self.classifier(self.dropout(self.decoder([images, images, *maps])))}
        if self.training:
            coarse = self.auxiliary(maps[-2])
            outputs["auxiliary"] = F.interpolate(
                coarse, size=outputs["logits"].shape[-2:], mode="bilinear", align_corners=False
            )
        return outputs


class _Cells(nn.AdaptiveAvgPool2d):
    """Mean over the cells of a grid. PyTorch's own pooling is traced for the traced size alone."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return super().forward(x)
        cells = self.output_size
        assert isinstance(cells, int)
        rows, columns = (pooling_matrix(length, cells, x) for length in x.shape[-2:])
        return rows @ x @ columns.mT


class LinearSegmenter(Segmenter):
    """One linear layer on the normalised last map, as a probe of what a backbone's features know.

    Args:
        maps: of any backbone; the last one serves.
        num_classes: without the one that is ignored.
    """

    def __init__(self, maps: Maps, num_classes: int) -> None:
        super().__init__(num_classes, maps.strides[-1])
        self.maps = maps
        self.norm = nn.LayerNorm(maps.channels[-1])
        self.classifier = nn.Linear(maps.channels[-1], num_classes)

    def decode(self, images: Tensor) -> dict[str, Tensor]:
        tokens = self.maps(images)[-1].permute(0, 2, 3, 1)
        return {"logits": self.classifier(self.norm(tokens)).permute(0, 3, 1, 2)}


def full_size(logits: Tensor, stride: int, size: Sequence[int]) -> Tensor:
    """Logits (B, classes, h, w), ``stride`` pixels a step, -> (B, classes, *size); padding is cut off."""
    sides = [side * stride for side in logits.shape[-2:]]
    grown = F.interpolate(logits, size=sides, mode="bilinear", align_corners=False)
    return grown[..., : size[0], : size[1]]


def build_segmenter(name: str, maps: Maps, num_classes: int, **options: Any) -> Segmenter:
    """``semantic_fpn``, ``upernet``, ``linear`` or ``queries`` with the options of its class; ``pyramid`` are those of
    the pyramid.

    Raises:
        ValueError: for another name, or an option that it doesn't know.
    """
    from .query_segmenter import QuerySegmenter  # here: it stands on this file

    known: dict[str, type[Segmenter]] = {
        "semantic_fpn": SemanticFPN,
        "upernet": UPerNet,
        "linear": LinearSegmenter,
        "queries": QuerySegmenter,
    }
    if name not in known:
        raise ValueError(f"no segmenter {name!r}; expected {', '.join(known)}")
    on: Any = maps
    if name == "semantic_fpn":
        levels = dict(options.pop("pyramid", {}))
        check_options("the pyramid", Pyramid, levels, "model.segmenter.pyramid", beside=("extra",))
        on = Pyramid(maps, **levels)
    check_options(name, known[name], options, "model.segmenter")
    build: Any = known[name]
    out: Segmenter = build(on, num_classes, **options)
    return out

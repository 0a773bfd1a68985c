"""From a backbone of timm's registry to maps at several strides, which detectors and segmenters stand on.

Hierarchical backbones serve their stages; a plain ViT serves its last map, from which ViTDet's simple feature pyramid
makes the others (arXiv 2203.16527, section 3).
"""

import math
from collections.abc import Sequence

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.private_torch import feature_getter
from .windowed_vit import WindowedViT


class Maps(nn.Module):
    """A backbone's maps: images (B, C, H, W) of any size -> a list of (B, channels[i], H/strides[i], W/strides[i]).

    Images are padded with zeros below and to the right up to the next multiple of the largest stride (twice it for a
    plain ViT), so that the maps divide evenly; they cover the padded picture.

    Args:
        model: of timm's registry, without a classifier; a plain ViT built with ``dynamic_img_size=True``, Swin with
            ``strict_img_size=False``.
        out_indices: which stages of a hierarchical model; the last four unless given.
        window, global_blocks: of a plain ViT, see ``WindowedViT``.

    Attributes:
        channels, strides: of the maps, one entry each.
        is_plain: whether the model has one stride; then there is one map.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        out_indices: Sequence[int] | None = None,
        window: int | None = 14,
        global_blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        info = getattr(model, "feature_info", None)
        if not info or not hasattr(model, "forward_intermediates"):
            raise ValueError(
                f"{type(model).__name__} serves no maps (timm's forward_intermediates and feature_info); "
                "take another backbone"
            )
        stages = list(info)
        self.is_plain = len(stages) > 1 and len({stage["reduction"] for stage in stages}) == 1
        if self.is_plain:
            kept = [len(stages) - 1]
            whole = window is None and global_blocks is None and not hasattr(model, "blocks")
            self.body = model if whole else WindowedViT(model, window=window, global_blocks=global_blocks)
        else:
            kept = list(range(len(stages)))[-4:] if out_indices is None else sorted(out_indices)
            if not kept or not 0 <= kept[0] <= kept[-1] < len(stages):
                raise ValueError(
                    f"out_indices must name stages from 0 to {len(stages) - 1}, got {out_indices}"
                )
            self.body = feature_getter(model, tuple(kept))
        self.channels = tuple(int(stages[i]["num_chs"]) for i in kept)
        self.strides = tuple(int(stages[i]["reduction"]) for i in kept)
        # The simple pyramid has a level of twice a plain ViT's stride.
        self.multiple = self.strides[-1] * (2 if self.is_plain else 1)

    @property
    def backbone(self) -> nn.Module:
        """The model of timm's registry."""
        return self.body.vit if isinstance(self.body, WindowedViT) else getattr(self.body, "model", self.body)

    def padding(self, size: Sequence[int]) -> tuple[int, int, int, int]:
        """What images of ``size`` (height, width) are padded by, as ``torch.nn.functional.pad`` takes it."""
        return 0, -size[1] % self.multiple, 0, -size[0] % self.multiple

    def forward(self, images: Tensor) -> list[Tensor]:
        padding = self.padding(images.shape[-2:])
        maps = self.body(F.pad(images, padding) if any(padding) else images)
        return [maps] if isinstance(maps, Tensor) else list(maps)


class Pyramid(nn.Module):
    """Maps of equal width, in float32 whatever the precision around it: images (B, C, H, W) -> a list of them.

    A hierarchical backbone's stages go through a feature pyramid network (torchvision's; Lin et al., arXiv
    1612.03144), a plain ViT's last map through ViTDet's simple one.

    Args:
        maps: the backbone's.
        width: channels of every level.
        extra: levels beyond the backbone's last: ``pool`` (one, by taking every second entry: Faster R-CNN),
            ``convolve`` (two, by convolutions of stride 2: RetinaNet), or ``none``.
        norm: group normalisation after every convolution of the network, which small batches and training from
            scratch want; ViTDet's pyramid has its own.
    """

    def __init__(self, maps: Maps, *, width: int = 256, extra: str = "none", norm: bool = False) -> None:
        super().__init__()
        if extra not in ("none", "pool", "convolve"):
            raise ValueError(f"extra must be none, pool or convolve, got {extra!r}")
        self.maps, self.width, self.extra = maps, width, extra
        self.neck: nn.Module
        if maps.is_plain:
            scales = (4, 2, 1, 0.5)
            if maps.strides[0] % 4:
                raise ValueError(
                    f"the simple pyramid divides a patch into quarters: {maps.strides[0]} pixels don't divide by 4; "
                    "take a model whose patches do, or a linear head"
                )
            self.neck = SimplePyramid(maps.channels[0], width, scales)
            self.strides = tuple(int(maps.strides[0] / scale) for scale in scales)
        else:
            self.neck = _feature_pyramid(maps.channels, width, norm)
            self.strides = maps.strides
        if extra == "pool":
            self.strides += (2 * self.strides[-1],)
        elif extra == "convolve":
            self.further = nn.ModuleList([nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(2)])
            self.strides += (2 * self.strides[-1], 4 * self.strides[-1])

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.maps(images)
        levels = self.neck(maps[0]) if self.maps.is_plain else _run(self.neck, maps)
        if self.extra == "pool":
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        elif self.extra == "convolve":
            for i, layer in enumerate(self.further):
                levels.append(layer(levels[-1].relu() if i else levels[-1]))
        # Boxes in bfloat16 lie on a grid of 2 pixels from 256 pixels on: what follows computes in float32.
        return [level.float() for level in levels]


class SimplePyramid(nn.Module):
    """ViTDet's pyramid: (B, dim, H, W) -> maps (B, width, H·scale, W·scale), one a scale (4, 2, 1 or 0.5)."""

    def __init__(self, dim: int, width: int, scales: Sequence[float]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            [nn.Sequential(*_scaled(dim, scale), *_smooth(_dim(dim, scale), width)) for scale in scales]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [level(x) for level in self.levels]


def _dim(dim: int, scale: float) -> int:
    return dim // int(scale) if scale > 1 else dim


def _scaled(dim: int, scale: float) -> list[nn.Module]:
    if scale == 4:
        first = nn.ConvTranspose2d(dim, dim // 2, 2, stride=2)
        return [first, LayerNorm2d(dim // 2), nn.GELU(), nn.ConvTranspose2d(dim // 2, dim // 4, 2, stride=2)]
    if scale == 2:
        return [nn.ConvTranspose2d(dim, dim // 2, 2, stride=2)]
    return [] if scale == 1 else [nn.MaxPool2d(2, stride=2)]


def _smooth(dim: int, width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(dim, width, 1, bias=False),
        LayerNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        LayerNorm2d(width),
    ]


def _feature_pyramid(channels: Sequence[int], width: int, norm: bool) -> nn.Module:
    from torchvision.ops import FeaturePyramidNetwork  # here: the package itself imports without torchvision

    out: nn.Module = FeaturePyramidNetwork(list(channels), width, norm_layer=group_norm if norm else None)
    return out


def _run(network: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    """torchvision's network wants names."""
    return list(network({str(i): level for i, level in enumerate(maps)}).values())


def group_norm(channels: int) -> nn.GroupNorm:
    """Of 32 groups, or of as many as ``channels`` allows for groups of 8 or more."""
    return nn.GroupNorm(math.gcd(32, max(channels // 8, 1)), channels)


def heads_precision(images: Tensor) -> torch.autocast:
    """The context in which heads run: float32, whatever the backbone ran in."""
    return torch.autocast(images.device.type, enabled=False)

"""iViT, a hierarchical convolution-transformer hybrid whose attention is interactive (arXiv 2402.17507).

Stages at strides 4, 8, 16 and 32: convolutional ones first, interactive attention in the deeper ones; because it is
linear in the number of tokens it serves in the early stages too. The widths and depths of Tiny, Small and Base are our
own sizing, since the paper's are not public: at 224 pixels 11.1 M parameters and 2.1 GMACs, 25.5 M and 4.4, 50.3 M and
8.8. Micro is for pictures of 8 to 64 pixels on a side.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from timm.layers import (
    Attention,
    DropPath,
    LayerNorm,
    LayerNorm2d,
    Mlp,
    NormMlpClassifierHead,
    create_conv2d,
    trunc_normal_,
)
from timm.models import checkpoint_seq
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers import InteractingAttention, interactive_attention_layer
from ..ops.checks import check_head_width
from ..ops.private_torch import taken_indices
from .variants import Family, Variant, default_cfg, register_variants

AttentionName = Literal["imhsa", "mhsa"]


class AttentionBlock(nn.Module):
    """A depthwise convolution that tells positions apart, attention, and an MLP; (B, C, H, W) in and out."""

    gives_token_grid = True  # for swap_attention: interactive attention needs no other source of its grid

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        attn: AttentionName,
        landmarks: int | tuple[int, int],
        interaction: bool,
        mlp_ratio: float,
        attn_drop: float,
        proj_drop: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        check_head_width(dim, num_heads)
        layer: Callable[..., nn.Module] = Attention
        if attn == "imhsa":
            layer = partial(interactive_attention_layer, landmarks=landmarks, interaction=interaction)
        self.position = create_conv2d(dim, dim, 3, depthwise=True, bias=True)
        self.norm1 = LayerNorm(dim)
        self.attn = layer(dim, num_heads, qkv_bias=True, attn_drop=attn_drop, proj_drop=proj_drop)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position(x)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        told = {"grid": grid} if isinstance(self.attn, InteractingAttention) else {}
        x = x + self.drop_path1(self.attn(self.norm1(x), **told))
        x = x + self.drop_path2(self.mlp(self.norm2(x)))
        out: Tensor = x.transpose(1, 2).unflatten(2, grid)
        return out


class Stage(nn.Module):
    """Halves the resolution, unless it is the first, and applies its blocks; (B, C, H, W) in and out."""

    def __init__(self, in_chs: int, out_chs: int, blocks: Sequence[nn.Module], downsample: bool) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if downsample:
            self.downsample = nn.Sequential(
                LayerNorm2d(in_chs), create_conv2d(in_chs, out_chs, 2, stride=2, padding=0, bias=True)
            )
        self.blocks = nn.Sequential(*blocks)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        checkpointed = self.grad_checkpointing and not torch.jit.is_scripting()
        out: Tensor = checkpoint_seq(self.blocks, x) if checkpointed else self.blocks(x)
        return out


class IViT(nn.Module):
    """iViT. Images (B, in_chans, H, W) of any size from the total stride up; padded with zeros where it doesn't divide.

    Args:
        img_size: the images' side or (height, width); checked here, and otherwise free to change between calls.
        in_chans: channels of the images.
        num_classes: outputs of the classifier; 0 for none.
        global_pool: pooling before it, ``avg``, ``max``, or empty for none.
        depths, dims: blocks and channels of each stage.
        num_heads: heads of each stage's attention, or one number for all; each must divide the stage's channels.
        attention_stages: which stages attend, counted from 0; the others are convolutional.
        attn: ``imhsa``, or ``mhsa`` for plain attention in its place.
        interaction: whether the heads of ``imhsa`` exchange their attention.
        landmarks: cells per side, or (rows, columns), of ``imhsa``.
        stem_stride: of the convolutional stem: 1, 2 or 4. Each later stage halves the resolution.
        mlp_ratio: hidden channels of every MLP over its stage's channels.
        drop_rate, proj_drop_rate, attn_drop_rate: dropout before the classifier, in projections and MLPs, of attention.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.

    Raises:
        ValueError: for stage lists of different lengths, heads that don't divide, a stage that isn't there, an image
            smaller than the total stride, or an unknown ``attn``.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] | None = None,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        depths: Sequence[int] = (2, 2, 6, 2),
        dims: Sequence[int] = (48, 96, 192, 384),
        num_heads: int | Sequence[int] = (2, 3, 6, 12),
        attention_stages: Sequence[int] = (2, 3),
        attn: AttentionName = "imhsa",
        interaction: bool = True,
        landmarks: int | tuple[int, int] = 7,
        stem_stride: int = 4,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        heads = [num_heads] * len(dims) if isinstance(num_heads, int) else list(num_heads)
        _check_stages(depths, dims, heads, attention_stages, attn, stem_stride)
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = dims[-1]
        self.total_stride = stem_stride * 2 ** (len(dims) - 1)
        if img_size is not None:
            self.set_input_size(img_size)
        self.stem = _stem(in_chans, dims[0], stem_stride)
        rates = [drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths))]
        attend = partial(
            AttentionBlock,
            attn=attn,
            landmarks=landmarks,
            interaction=interaction,
            mlp_ratio=mlp_ratio,
            attn_drop=attn_drop_rate,
            proj_drop=proj_drop_rate,
        )
        convolve = partial(ConvNeXtBlock, kernel_size=5, mlp_ratio=mlp_ratio, ls_init_value=None)
        self.stages, self.feature_info = nn.Sequential(), []
        for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
            make = partial(attend, dim, heads[i]) if i in attention_stages else partial(convolve, dim)
            first = sum(depths[:i])
            blocks = [make(drop_path=rate) for rate in rates[first : first + depth]]
            self.stages.append(Stage(dims[max(i - 1, 0)], dim, blocks, downsample=i > 0))
            self.feature_info.append(dict(num_chs=dim, reduction=stem_stride * 2**i, module=f"stages.{i}"))
        self.head = NormMlpClassifierHead(dims[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.apply(_init_weights)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def no_weight_decay(self) -> set[str]:
        """The mixing matrices: decay would pull them to 0, and no interaction is the identity."""
        return {name for name, _ in self.named_parameters() if name.endswith((".mix_query", ".mix_key"))}

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of timm's layer groups: the stem, then each stage (``coarse``) or each block."""
        fine = [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else fine}

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether the backward pass forms each block's activations again instead of keeping them."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier for ``num_classes``, and another pooling where one is given."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Checks a size that will come; nothing depends on it. Raises ValueError below the total stride."""
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self._check_size(height, width)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) -> the last stage's map (B, num_features, H', W')."""
        out: Tensor = self.stages(self.stem(self._pad(x)))
        return out

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        out: Tensor = self.head(x, pre_logits=pre_logits)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The last map and a list of stages' maps, or the list alone; see timm's ``forward_intermediates``.

        ``norm`` has no effect: the only norm outside the stages belongs to the classifier.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"iViT's maps are NCHW, got output_fmt={output_fmt!r}")
        taken, last = taken_indices(len(self.stages), indices)
        maps = []
        x = self.stem(self._pad(x))
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if i in taken:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drops the stages after the last of ``indices``, and the classifier with them; the indices, normalised."""
        taken, last = taken_indices(len(self.stages), indices)
        pruned = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if prune_head or pruned:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
            self.num_classes = 0
            self.head = NormMlpClassifierHead(self.num_features, 0, pool_type="", norm_layer=nn.Identity)
        return taken

    def _pad(self, x: Tensor) -> Tensor:
        """Zeros below and to the right, up to multiples of the total stride."""
        height, width = x.shape[-2:]
        self._check_size(height, width)
        below, right = -height % self.total_stride, -width % self.total_stride
        return F.pad(x, (0, right, 0, below)) if below or right else x

    def _check_size(self, height: int, width: int) -> None:
        if height < self.total_stride or width < self.total_stride:
            raise ValueError(
                f"images must be at least {self.total_stride} x {self.total_stride}, the total stride, "
                f"got {height} x {width}; enlarge them, or use a model of a smaller stem_stride or fewer stages"
            )


def _stem(in_chans: int, dim: int, stride: int) -> nn.Sequential:
    """Convolutions of 3 x 3, one for each halving and at least one, each but the last followed by a norm and GELU."""
    if stride < 4:
        return nn.Sequential(create_conv2d(in_chans, dim, 3, stride=stride, bias=True), LayerNorm2d(dim))
    return nn.Sequential(
        create_conv2d(in_chans, dim // 2, 3, stride=2, bias=True),
        LayerNorm2d(dim // 2),
        nn.GELU(),
        create_conv2d(dim // 2, dim, 3, stride=2, bias=True),
        LayerNorm2d(dim),
    )


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_stages(
    depths: Sequence[int],
    dims: Sequence[int],
    heads: Sequence[int],
    attention_stages: Sequence[int],
    attn: str,
    stem_stride: int,
) -> None:
    if not len(depths) == len(dims) == len(heads):
        raise ValueError(
            f"depths, dims and num_heads must have one entry a stage, got {len(depths)}, {len(dims)} and {len(heads)}"
        )
    absent = [i for i in attention_stages if not 0 <= i < len(dims)]
    if absent:
        raise ValueError(f"attention_stages must name stages from 0 to {len(dims) - 1}, got {absent}")
    if attn not in ("imhsa", "mhsa"):
        raise ValueError(f"attn must be imhsa or mhsa, got {attn!r}")
    if stem_stride not in (1, 2, 4):
        raise ValueError(f"stem_stride must be 1, 2 or 4, got {stem_stride}")


TINY = dict(depths=(3, 4, 9, 2), dims=(56, 112, 224, 416), num_heads=(2, 4, 7, 13))
SMALL = dict(depths=(4, 4, 14, 3), dims=(64, 128, 288, 512), num_heads=(2, 4, 9, 16))
BASE = dict(depths=(4, 6, 18, 4), dims=(88, 176, 352, 640), num_heads=(2, 4, 11, 20))
MICRO = dict(depths=(1, 2, 1), dims=(32, 64, 128), num_heads=(2, 4, 8), landmarks=4)

register_variants(
    __name__,
    {"ivit": Family(IViT)},
    {
        "tiny": Variant("11.1 million parameters, 2.1 GMACs at 224 pixels", 224, TINY),
        "small": Variant("25.5 million parameters, 4.4 GMACs at 224 pixels", 224, SMALL),
        "base": Variant("50.3 million parameters, 8.8 GMACs at 224 pixels", 224, BASE),
        "micro_stride1_8": Variant(
            "Three stages at strides 1, 2 and 4, all attending to 4 x 4 landmarks: for 8 to 16 pixels",
            8,
            dict(MICRO, stem_stride=1, attention_stages=(0, 1, 2)),
        ),
        "micro_stride2_32": Variant(
            "Three stages at strides 2, 4 and 8, the last two attending to 4 x 4 landmarks: for 16 to 64 pixels",
            32,
            dict(MICRO, stem_stride=2, attention_stages=(1, 2)),
        ),
    },
    cfg=partial(default_cfg, classifier="head.fc", first_conv="stem.0", fixed_input_size=False),
)

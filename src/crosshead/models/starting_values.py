"""The values that the MOHSA authors' models start from: ``weight_init="authors"``.

Their ViT and CaiT draw class and position embeddings, and the matrices that mix CaiT's heads, from N(0, 1), and leave
linear layers as PyTorch starts them; timm draws embeddings and linear layers from a truncated normal of 0.02. A linear
layer on flattened patches and the convolution that takes its place here start alike: PyTorch draws both from
U(-n^(-1/2), n^(-1/2)), n the numbers of a patch.
"""

import torch
from timm.models.cait import Cait, TalkingHeadAttn
from torch import nn

from ..swap import SwapReport
from .class_attention import TalkingClassAttention

AUTHORS = "authors"
# What timm's ViT and Swin call theirs; "" is timm's default.
TIMM = ("", "reset", "jax", "jax_nlhb", "moco", "skip")


def check_weight_init(name: str, of_timm: tuple[str, ...] = TIMM) -> str:
    """Raises ValueError unless ``name`` is ``authors`` or one of timm's names."""
    if name not in (AUTHORS, *of_timm):
        timms = ", ".join(repr(n) for n in of_timm)
        raise ValueError(f"weight_init must be {AUTHORS!r}, or timm's {timms}; got {name!r}")
    return name


def layer_scale(number: int) -> float:
    """LayerScale's starting value (CaiT, arXiv 2103.17239, section 2): 0.1 to 18, 1e-5 to 24, 1e-6 beyond.

    CaiT gives all blocks the value of the network's depth; the authors' code gives each block that of its own number.
    """
    return 0.1 if number <= 18 else 1e-5 if number <= 24 else 1e-6


@torch.no_grad()
def start_layer_scale(model: Cait, *, by_block: bool) -> None:
    """LayerScale of every block, patch and class blocks each counted from 1, or all by the network's depth."""
    for blocks in (model.blocks, model.blocks_token_only):
        for number, block in enumerate(blocks, 1):
            value = layer_scale(number if by_block else len(model.blocks))
            for gamma in ("gamma_1", "gamma_2"):
                block.get_parameter(gamma).fill_(value)


@torch.no_grad()
def draw_embeddings(model: nn.Module) -> None:
    """Class and position embeddings from N(0, 1), where the model has them."""
    for name in ("cls_token", "pos_embed"):
        if (embedding := getattr(model, name, None)) is not None:
            embedding.normal_()


@torch.no_grad()
def start_cait(model: Cait) -> None:
    """All of timm's CaiT but LayerScale, before its heads overlap."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.reset_parameters()
    mixing = (m for m in model.modules() if isinstance(m, TalkingHeadAttn | TalkingClassAttention))
    for attn in mixing:
        for layer in (attn.proj_l, attn.proj_w):
            layer.weight.normal_()
            if layer.bias is not None:  # theirs has none
                layer.bias.zero_()
    draw_embeddings(model)


def start_projections(model: nn.Module, swapped: SwapReport) -> None:
    """The projections of overlapped heads: a swap draws the columns that it adds as timm would."""
    for replacement in swapped.replaced:
        model.get_submodule(replacement.path).proj.reset_parameters()  # type: ignore[operator, union-attr]

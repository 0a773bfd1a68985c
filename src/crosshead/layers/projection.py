"""The projection of heads that grow or shrink."""

import torch
from timm.layers import trunc_normal_
from torch import nn


@torch.no_grad()
def resized(old: nn.Linear, num_heads: int, old_width: int, width: int, *, preserve: bool) -> nn.Linear:
    """A projection whose inputs are ``num_heads`` heads of ``width``, from one whose heads are ``old_width`` wide.

    A head's own channels stand in the middle, and what both have of the middle is copied. New columns around it, which
    meet borrowed channels, are 0 (``preserve``) or drawn as timm draws a projection. The bias goes on serving.
    """
    weight, bias = old.weight, old.bias
    new = nn.Linear(
        num_heads * width, old.out_features, bias=bias is not None, device=weight.device, dtype=weight.dtype
    )
    if preserve:
        new.weight.zero_()
    else:
        trunc_normal_(new.weight, std=0.02)
    common = min(width, old_width)
    into, of = (width - common) // 2, (old_width - common) // 2
    columns, known = (
        w.unflatten(1, (num_heads, size)) for w, size in ((new.weight, width), (weight, old_width))
    )
    columns[..., into : into + common] = known[..., of : of + common]
    new.weight.requires_grad_(weight.requires_grad)
    if bias is not None:
        new.bias = bias
    return new.train(old.training)

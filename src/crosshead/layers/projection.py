"""The projection of heads that grow or shrink."""

from typing import Any

import torch
from timm.layers import trunc_normal_
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ..ops.private_torch import hooks_of


def check_resizable(projection: nn.Module) -> nn.Linear | nn.Conv2d:
    """Raises ValueError unless ``projection`` is a linear layer and nothing but one; of maps, a convolution of 1 x 1.

    A subclass (LoRA, quantized), a hook (spectral norm, pruning) or a parametrization computes its output from more
    than weight and bias, and none of it would survive in a wider layer.
    """
    if type(projection) not in (nn.Linear, NonDynamicallyQuantizableLinear) and not _is_of_pixels(projection):
        raise ValueError(
            f"the projection is a {type(projection).__module__}.{type(projection).__qualname__}, and heads that grow "
            "need a plain torch.nn.Linear: merge or remove what was added to it, swap, and add it again"
        )
    if hooks_of(projection) or "forward" in vars(projection):
        raise ValueError(
            "the projection carries hooks (spectral or weight norm, pruning, or your own), which a wider one would "
            "lose: remove them, swap, and add them again"
        )
    return projection  # type: ignore[return-value]


def _is_of_pixels(projection: nn.Module) -> bool:
    return (
        type(projection) is nn.Conv2d
        and projection.kernel_size == projection.stride == (1, 1)
        and projection.groups == 1
        and not any(projection.padding)
    )


@torch.no_grad()
def resized(
    old: nn.Linear | nn.Conv2d, num_heads: int, old_width: int, width: int, *, preserve: bool
) -> nn.Linear | nn.Conv2d:
    """A projection whose inputs are ``num_heads`` heads of ``width``, from one whose heads are ``old_width`` wide.

    A head's own channels stand in the middle, and what both have of the middle is copied. New columns around it, which
    meet borrowed channels, are 0 (``preserve``) or drawn as timm draws a projection. The bias goes on serving.
    """
    weight, bias = old.weight, old.bias
    more: dict[str, Any] = {"kernel_size": 1} if isinstance(old, nn.Conv2d) else {}
    new = type(old)(
        num_heads * width,
        weight.shape[0],
        bias=bias is not None,
        device=weight.device,
        dtype=weight.dtype,
        **more,
    )
    if preserve:
        new.weight.zero_()
    else:
        trunc_normal_(new.weight, std=0.02)
    common = min(width, old_width)
    into, of = (width - common) // 2, (old_width - common) // 2
    columns, known = (
        w.flatten(1).unflatten(1, (num_heads, size)) for w, size in ((new.weight, width), (weight, old_width))
    )
    columns[..., into : into + common] = known[..., of : of + common]
    new.weight.requires_grad_(weight.requires_grad)
    if bias is not None:
        new.bias = bias
    return new.train(old.training)

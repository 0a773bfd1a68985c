"""What re-attention accepts, checked in one place."""

import torch
from torch import Tensor

from ..checks import check_dropout, check_heads, check_mask, check_shape


def check_reattention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mix: Tensor,
    mix_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    given: tuple[Tensor, Tensor] | None,
    attn_bias: Tensor | None,
    dropout_p: float,
) -> tuple[int, int, int, int]:
    """The shape (B, h, N, N) of the maps; raises ValueError for what does not fit."""
    shape = check_heads(q, k, v)
    heads = shape[1]
    check_shape("mix", mix, (heads, heads), "(num_heads, num_heads)")
    mean, variance = given or (None, None)
    per_head = {
        "mix_bias": mix_bias,
        "norm_weight": norm_weight,
        "norm_bias": norm_bias,
        "mean": mean,
        "variance": variance,
    }
    for name, x in per_head.items():
        check_shape(name, x, (heads,), "(num_heads,)")
    if attn_bias is not None and attn_bias.dtype == torch.bool:
        raise ValueError(
            "re-attention takes no mask: its norm gives a hidden key the weight of a mean one; pass only the tokens "
            "that take part, or use another interaction"
        )
    check_mask(attn_bias, shape)
    check_dropout(dropout_p)
    if given is None and shape[0] * shape[2] * shape[3] == 1:
        raise ValueError(
            "the statistics of a batch need more than one entry of each map, got one image of one token; give a larger "
            "batch, or the running statistics (model.eval())"
        )
    return shape

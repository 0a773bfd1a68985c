"""Knocking heads as the library uses them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..modes import traceable
from ..renamed import took_packed
from .arguments import check_fold, check_gated, check_knock, check_packed_knock


def packed_knock(heads: Tensor, matrices: Tensor) -> Tensor:
    """``knock`` of packed heads (B, N, n, h, d), n of queries, keys and values, as one projection gives them."""
    check_packed_knock(heads, matrices)
    return heads @ matrices.unsqueeze(0).unsqueeze(0)


@took_packed(packed_knock)
@traceable
def knock(q: Tensor, k: Tensor, v: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every head times a matrix that all heads share (arXiv 2510.23052, equations 5 to 7); attention follows as usual.

    Args:
        q, k, v: (B, h, N, d), any strides.
        matrices: (3, d, d): that of the queries, of the keys, of the values.

    Returns:
        Queries, keys and values, (B, h, N, d) each.

    Raises:
        ValueError: for sizes that do not fit.
    """
    check_knock(q, k, v, matrices)
    return q @ matrices[0], k @ matrices[1], v @ matrices[2]


def fold(weight: Tensor, bias: Tensor | None, matrices: Tensor) -> tuple[Tensor, Tensor | None]:
    """The projection whose heads come out knocked (equation 8): ``knock`` of its result, without ``knock``.

    Args:
        weight: (n·h·d, dim) of a linear layer, as ``nn.Linear`` has it: n of queries, keys and values, head by head.
        bias: (n·h·d,) or None.
        matrices: (n, d, d).

    Raises:
        ValueError: for sizes that do not fit.
    """
    num_heads = check_fold(weight, bias, matrices)
    count, width, _ = matrices.shape
    by_head = weight.reshape(count, num_heads, width, -1)
    folded = (matrices.mT.unsqueeze(1) @ by_head).reshape(weight.shape)
    if bias is None:
        return folded, None
    return folded, (bias.reshape(count, num_heads, width) @ matrices).flatten()


@traceable
def gated_values(values: Tensor, up: Tensor, gate: Tensor, down: Tensor) -> Tensor:
    """The gated form of the values (equation 9), with the two first products as one.

    Args:
        values: (..., d).
        up, gate, down: (d, d) each.

    Raises:
        ValueError: for sizes that do not fit.
    """
    check_gated(values, up, gate, down)
    return F.glu(values @ torch.cat([up, gate], dim=1), dim=-1) @ (2 * down)

"""The mixing matrices that the tokens bring: two for each token before the softmax, and two after it."""

import torch
import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-6  # of the normalised factors, as the authors have it


def mixing_matrices(
    x: Tensor,
    hidden_weight: Tensor,
    factor_weight: Tensor,
    diagonal_weight: Tensor,
    pre_weight: Tensor | None,
    post_weight: Tensor | None,
) -> Tensor:
    """(B, N, 4, h, h) of tokens x (B, N, dim): before the softmax by query and by key, and after it.

    Row g holds the shares of the heads in composed head g. The identity and the static part are in the queries'.
    """
    _, _, num_factors, num_heads = factor_weight.shape
    hidden = F.gelu(F.linear(x, hidden_weight)).unflatten(-1, (4, -1))
    # One product for each of the four: (4, B·N, K) by (4, K, 2R·h).
    factors = torch.bmm(hidden.flatten(0, 1).transpose(0, 1), factor_weight.flatten(2))
    factors = factors.transpose(0, 1).view(*x.shape[:2], 4, num_factors, num_heads)
    first, second = factors.chunk(2, dim=3)
    first = first * torch.rsqrt(first.square().mean(-1, keepdim=True) + _EPSILON)
    diagonal = torch.tanh(F.linear(x, diagonal_weight)).unflatten(-1, (4, num_heads))
    same = torch.eye(num_heads, dtype=x.dtype, device=x.device)
    nothing = torch.zeros_like(same)
    static = torch.stack(
        [
            same if pre_weight is None else same + pre_weight,
            nothing,
            same if post_weight is None else same + post_weight,
            nothing,
        ]
    )
    return second.mT @ first + torch.diag_embed(diagonal) + static

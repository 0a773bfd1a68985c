"""Learned factors of the channels that the queries borrow."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_gain


def borrowed_factors(
    borrow_gain: Tensor | None, num_heads: int, head_dim: int, overlap: int, dtype: torch.dtype, tail: int = 0
) -> Tensor | None:
    """The factors (h, 1, d + 2·overlap + tail) of overlapped queries; None where there is no gain.

    ``borrow_gain`` (h, 2·overlap) for the channels of the head before and of the head after, 1 for all others.
    """
    if borrow_gain is None:
        return None
    gain = check_gain(borrow_gain, num_heads, overlap).to(dtype)
    before = F.pad(gain[:, :overlap], (0, head_dim + overlap + tail), value=1.0)
    after = F.pad(gain[:, overlap:], (overlap + head_dim, tail), value=1.0)
    return (before * after).unsqueeze(1)


def scale_borrowed(
    q: Tensor, borrow_gain: Tensor | None, head_dim: int, overlap: int, tail: int = 0
) -> Tensor:
    """Overlapped queries (B, h, N, d + 2·overlap + tail), their borrowed channels multiplied."""
    factors = borrowed_factors(borrow_gain, q.shape[1], head_dim, overlap, q.dtype, tail)
    return q if factors is None else q * factors

"""Learned factors of the channels that the queries borrow."""

import torch.nn.functional as F
from torch import Tensor

from ..checks import check_gain


def borrowed_factors(borrow_gain: Tensor | None, qkv: Tensor, overlap: int, tail: int = 0) -> Tensor | None:
    """The factors (h, 1, d + 2·overlap + tail) of the overlapped queries of qkv (B, N, 3, h, d), in its dtype.

    ``borrow_gain`` (h, 2·overlap) for the channels of the head before and of the head after, 1 for all others; None
    where there is no gain.
    """
    if borrow_gain is None:
        return None
    num_heads, head_dim = qkv.shape[3:]
    gain = check_gain(borrow_gain, num_heads, overlap).to(qkv.dtype)
    before = F.pad(gain[:, :overlap], (0, head_dim + overlap + tail), value=1.0)
    after = F.pad(gain[:, overlap:], (overlap + head_dim, tail), value=1.0)
    return (before * after).unsqueeze(1)

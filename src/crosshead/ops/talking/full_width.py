"""Talking heads through PyTorch's fused attention, each head over all channels of the layer.

A mixed logit is one dot product over all channels c, with the queries weighted::

    sum_i W_pre[g, i] <Q'_i, K'_i> = sum_c w_g[c] Q[c] K[c]      w_g[c]: the sum of W_pre[g, i] over heads i that read c

so overlapping costs nothing before the softmax: it only changes the weights. Likewise P_i V over all channels holds
every P_i V'_g. Memory is linear in N, the arithmetic h times that of plain attention.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..overlap.views import plain_windows
from ..sdpa import fused_attention


def full_width_attention(
    qkv: Tensor,
    pre_weight: Tensor,
    post_weight: Tensor,
    post_bias: Tensor,
    overlap: int,
    borrow_gain: Tensor | None,
) -> Tensor:
    """(B, N, h·(d + 2·overlap)) of qkv (B, N, 3, h, d); ``pre_weight`` holds the scale of the logits."""
    num_heads, head_dim = qkv.shape[3:]
    q, k, v = qkv.flatten(3).unsqueeze(1).unbind(3)
    shares = pre_weight @ _channels_read(qkv, overlap, borrow_gain)
    queries = q * shares.unsqueeze(1)
    everything = fused_attention(queries, k.expand_as(queries), v.expand_as(queries), scale=1.0)
    windows = plain_windows(everything.unflatten(-1, (num_heads, head_dim)), overlap)
    mixed = torch.einsum("gi,bingc->bngc", post_weight, windows)
    values = plain_windows(v.squeeze(1).sum(1).unflatten(-1, (num_heads, head_dim)), overlap)
    return (mixed + (post_bias.unsqueeze(1) * values).unsqueeze(1)).flatten(2)


def _channels_read(qkv: Tensor, overlap: int, borrow_gain: Tensor | None) -> Tensor:
    """With which factor head i reads each channel of the layer, (h, h·d): 1 or its gain in its window, else 0."""
    num_heads, head_dim = qkv.shape[3:]
    rest = head_dim - overlap
    if borrow_gain is None:
        # No padded ones: PyTorch 2.11's compiler writes C++ for them that does not compile.
        channel = torch.arange(head_dim, device=qkv.device)
        before, after = (channel >= rest).to(qkv.dtype), (channel < overlap).to(qkv.dtype)
    else:
        gain = borrow_gain.to(qkv.dtype)
        before = F.pad(gain[:, :overlap], (rest, 0)).unsqueeze(1)
        after = F.pad(gain[:, overlap:], (0, rest)).unsqueeze(1)
    neighbour = qkv.new_ones(max(num_heads - 1, 0))
    own, below, above = (
        torch.diag(diagonal, offset).unsqueeze(2)
        for diagonal, offset in ((qkv.new_ones(num_heads), 0), (neighbour, -1), (neighbour, 1))
    )
    return (own + below * before + above * after).flatten(1)

"""CaiT's class blocks as the MOHSA authors' code has them.

CaiT's own (Touvron et al., arXiv 2103.17239, section 3; timm's too) have plain heads, and normalise class and patches
alike. The authors' have talking heads (arXiv 2003.02436) without biases, and take the patches as they are::

    u   = [ norm(c) | x ]                         c the class token, x the N patch tokens
    L_i = (u_0 W_Q)_i (u W_K)_i^T s               one query, N + 1 keys; s = d^(-1/2)
    P_g = softmax(sum_i W_pre[g, i] L_i)
    A_g = sum_i W_post[g, i] P_i
    c  <- c + gamma_1 * [ A_1 V_1 | ... | A_h V_h ] W_O
    c  <- c + gamma_2 * MLP(norm(c))

| symbol | name |
| --- | --- |
| W_Q, W_K, W_V, W_O | ``q``, ``k``, ``v``, ``proj``, as timm's |
| W_pre, W_post | ``proj_l.weight``, ``proj_w.weight``, as in CaiT's patch blocks |
| gamma_1, gamma_2 | ``gamma_1``, ``gamma_2`` (LayerScale) |

These heads do not overlap. With one query the weights are h·(N + 1) numbers, so there is no faster form to look for.
"""

from typing import Any

import torch
from timm.models.cait import ClassAttn, LayerScaleBlockClassAttn, TalkingHeadAttn
from torch import Tensor, nn


class TalkingClassAttention(ClassAttn):
    """timm's ``ClassAttn`` whose heads talk: attention of the class token to all tokens.

    Tokens (B, 1 + N, dim) in, the class token first; the class token (B, 1, dim) out. Arguments as ``ClassAttn``.
    """

    def __init__(self, dim: int, num_heads: int = 8, *args: Any, **kwargs: Any) -> None:
        super().__init__(dim, num_heads, *args, **kwargs)
        place = {"device": self.q.weight.device, "dtype": self.q.weight.dtype}
        self.proj_l = nn.Linear(num_heads, num_heads, bias=False, **place)
        self.proj_w = nn.Linear(num_heads, num_heads, bias=False, **place)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, 1 + N, dim) -> the class token (B, 1, dim)."""
        weights = self.attn_drop(self._weights(x))
        out = torch.einsum("bnh,bnhd->bhd", weights, self._heads(self.v(x)))
        found: Tensor = self.proj_drop(self.proj(out.flatten(1).unsqueeze(1)))
        return found

    def attention_weights(self, x: Tensor) -> Tensor:
        """The mixed attention weights (B, h, 1, 1 + N) of the class token, for tokens (B, 1 + N, dim)."""
        return self._weights(x).transpose(1, 2).unsqueeze(2)

    def _weights(self, x: Tensor) -> Tensor:
        """(B, 1 + N, h): the head axis last, where the mixing is."""
        query = self._heads(self.q(x[:, 0])) * self.scale
        logits = torch.einsum("bhd,bnhd->bnh", query, self._heads(self.k(x)))
        out: Tensor = self.proj_w(self.proj_l(logits).softmax(dim=1))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        out: Tensor = x.unflatten(-1, (self.num_heads, -1))
        return out


class TalkingClassBlock(LayerScaleBlockClassAttn):
    """timm's ``LayerScaleBlockClassAttn`` whose norm sees the class token alone; the patches are taken as they are."""

    def forward(self, x: Tensor, x_cls: Tensor) -> Tensor:
        """Patch tokens (B, N, dim) and class token (B, 1, dim) -> class token (B, 1, dim)."""
        tokens = torch.cat((self.norm1(x_cls), x), dim=1)
        x_cls = x_cls + self.drop_path(self.gamma_1 * self.attn(tokens))
        out: Tensor = x_cls + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x_cls)))
        return out


def talking_heads_without_bias(dim: int, num_heads: int = 8, **kwargs: Any) -> TalkingHeadAttn:
    """timm's ``TalkingHeadAttn``, for the patch blocks, whose mixing has no biases."""
    attn = TalkingHeadAttn(dim, num_heads, **kwargs)
    for name in ("proj_l", "proj_w"):
        weight = getattr(attn, name).weight
        setattr(
            attn,
            name,
            nn.Linear(num_heads, num_heads, bias=False, device=weight.device, dtype=weight.dtype),
        )
    return attn

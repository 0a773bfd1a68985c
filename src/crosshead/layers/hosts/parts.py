"""What several hosts have in common: packed projections, their separate biases, rotations, biases of positions."""

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..layer import Heads
from ..linear import linear_with
from ..registry import host_of
from ..rotation import Rotation


class OfMaps(InteractingAttention):
    """A host whose projection is a convolution of maps (B, channels, H, W)."""

    def by_head(self, entering: Tensor) -> Tensor:
        return super().by_head(entering.movedim(1, -1))

    def side_by_side(self, heads: Tensor) -> Tensor:
        return super().side_by_side(heads).movedim(-1, 1)


class MadeWhenWanted(InteractingAttention):
    """A host for several classes that are alike: ``type(...)`` makes one for each, which no module has by name."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _blank, (self.replaced,), dict(vars(self))


def _blank(attention: type[nn.Module]) -> nn.Module:
    host: Any = host_of(attention)
    found: nn.Module = host.__new__(host)
    return found


def of_tokens(layer: InteractingAttention, tokens: Tensor, **more: Any) -> Heads:
    """The heads of tokens (B, N, dim) that one packed projection makes; ``more`` is what else there is."""
    qkv = layer.packed(tokens)
    q, k, v = qkv.unbind(2)
    drop: Any = layer.attn_drop
    return Heads(tokens, q, k, v, layer.scale, qkv=qkv, dropout_p=drop.p if layer.training else 0.0, **more)


def by_cosines(layer: InteractingAttention, tokens: Tensor, qkv: Tensor, **more: Any) -> Heads:
    """The heads of qkv (B, N, 3, h, d) whose logits are cosines under a scale a head (``logit_scale``, at most 100), as
    Swin v2 has them: the scale is part of a head's queries, and what a neighbour borrows is borrowed so."""
    q, k, v = qkv.unbind(2)
    logit_scale: Any = layer.logit_scale
    scale = torch.clamp(logit_scale, max=math.log(1.0 / 0.01)).exp()
    drop: Any = layer.attn_drop
    return Heads(
        tokens,
        F.normalize(q, dim=-1) * scale.view(-1, 1),
        F.normalize(k, dim=-1),
        v,
        1.0,
        dropout_p=drop.p if layer.training else 0.0,
        **more,
    )


def packed_with_biases(layer: nn.Module, x: Tensor) -> Tensor:
    """qkv of modules with ``q_bias`` and ``v_bias`` apart, as timm forms it: keys have a bias that is always 0."""
    if layer.q_bias is None:
        return layer.qkv(x)
    bias = torch.cat((layer.q_bias, layer.k_bias, layer.v_bias))  # type: ignore[arg-type]
    if layer.qkv_bias_separate:
        out: Tensor = layer.qkv(x) + bias  # type: ignore[operator]
        return out
    return linear_with(layer.qkv, x, bias)  # type: ignore[arg-type]


def rotation(layer: Any, rope: Tensor | None) -> Rotation | None:
    """timm's rotation of queries or keys (B, h, N, d) behind the prefix tokens."""
    if rope is None:
        return None
    turn = partial(apply_rot_embed_cat, half=getattr(layer, "rotate_half", False))
    return Rotation(turn, rope, layer.num_prefix_tokens)


def head_bias(own: Tensor | None, shared: Tensor | None = None) -> Tensor | None:
    """The bias (h, N, N) of a module and that which its blocks share, each (1, h, N, N) or (h, N, N) or None."""
    flat = [b.squeeze(0) if b.dim() == 4 else b for b in (own, shared) if b is not None]
    return sum(flat[1:], flat[0]) if flat else None


def weights_beside(layer: InteractingAttention, heads: Heads) -> Tensor | None:
    """The attention weights (B, h, N, N), or their mean over the heads (B, N, N), where the call asked for them."""
    if heads.weights is None:
        return None
    weights = layer.weights_of(heads)
    return weights.mean(1) if heads.weights == "mean" else weights

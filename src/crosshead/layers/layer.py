"""What an interaction is given: the layer that it works in, and of a call the heads: queries, keys and values, and all
that bears on their logits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .linear import weight_and_bias


class Mixing(NamedTuple):
    """The talking heads of a host: shares (h, h) and biases (h,) before and after the softmax."""

    pre_weight: Tensor
    pre_bias: Tensor | None
    post_weight: Tensor
    post_bias: Tensor | None

    @classmethod
    def of(cls, module: nn.Module) -> "Mixing | None":
        """That of ``proj_l`` and ``proj_w``, timm's names; None for a module without them."""
        pre, post = (getattr(module, name, None) for name in ("proj_l", "proj_w"))
        if not isinstance(pre, nn.Module) or not isinstance(post, nn.Module):
            return None
        return cls(*weight_and_bias(pre), *weight_and_bias(post))


@dataclass
class Heads:
    """The heads of one call.

    Args:
        tokens: what the module was called with (B, N, dim).
        q, k, v: (B, N, h, d), normalised where the host does so, and **not yet rotated**. Keys and values may be of
            another number M of tokens, values of another width (``alike`` tells).
        scale: factor of the logits.
        qkv: the same three packed (B, N, 3, h, d), where the host has them so.
        rotate: the rotation of queries or keys (B, h, N, d), or None.
        bias: added to the logits (h, N, M), or (B, h, N, M) where it is made of the queries, or None; it may learn.
        window_mask: added to the logits (windows, N, N), alike for all heads, or None; B counts images · windows.
        attn_mask: boolean (True takes part) or additive, broadcastable to (B, h, N, N), or None.
        is_causal: each token attends to itself and those before it.
        dropout_p: the share of attention weights that is dropped; 0 in evaluation.
        mixing: the host's own talking heads, or None.
        grid: rows and columns of the tokens after the prefix, or None where nobody said.
        num_prefix_tokens: tokens before those on the grid.
        shape: what the host needs to know of its input when it writes, or None.
        weights: ``each`` or ``mean`` (over the heads) where the host gives the attention weights beside its output.
    """

    tokens: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    qkv: Tensor | None = None
    rotate: Callable[[Tensor], Tensor] | None = None
    bias: Tensor | None = None
    window_mask: Tensor | None = None
    attn_mask: Tensor | None = None
    is_causal: bool = False
    dropout_p: float = 0.0
    mixing: Mixing | None = None
    grid: tuple[int, int] | None = None
    num_prefix_tokens: int = 0
    shape: tuple[int, ...] | None = None
    weights: Literal["each", "mean"] | None = None

    @property
    def alike(self) -> bool:
        """Whether queries, keys and values are of the same tokens and equally wide."""
        return self.q.shape == self.k.shape == self.v.shape

    @property
    def is_simple(self) -> bool:
        """``alike``, and a bias, if there is one, that is the same for all images."""
        return self.alike and (self.bias is None or self.bias.dim() == 3)

    def packed(self) -> Tensor:
        """Queries, keys and values (B, N, 3, h, d), not rotated; a copy only where the host has them apart."""
        return torch.stack([self.q, self.k, self.v], dim=2) if self.qkv is None else self.qkv

    def split(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, h, N, d) as plain attention takes them: rotated, in one dtype."""
        q, k, v = (x.transpose(1, 2) for x in (self.q, self.k, self.v))
        if self.rotate is not None:
            q, k = self.rotate(q), self.rotate(k)
        return q.to(v.dtype), k.to(v.dtype), v

    def logits_bias(self) -> Tensor | None:
        """All that is added to the logits as one tensor, broadcastable to (B, h, N, N), or None. Causality is apart."""
        total = self.bias if self.bias is None or self.bias.dim() == 4 else self.bias.unsqueeze(0)
        if self.window_mask is not None:
            mask = self.window_mask.detach().to(self.v.dtype).unsqueeze(1)
            mask = mask.repeat(self.v.shape[0] // mask.shape[0], 1, 1, 1)
            total = mask if total is None else total + mask
        if self.attn_mask is None:
            return total
        if total is None:
            return self.attn_mask
        if self.attn_mask.dtype == torch.bool:
            return total.masked_fill(~self.attn_mask, -torch.inf)
        return total + self.attn_mask

    def added(self) -> dict[str, Any]:
        """``logits_bias`` and causality, as operators take them."""
        return {"attn_mask": self.logits_bias(), "is_causal": self.is_causal}


class Layer(nn.Module):
    """An attention module with heads, seen from an interaction: sizes, projections, and what was learned.

    What an interaction learns it registers here; ``crosshead.layers.InteractingAttention`` is all the rest.
    """

    # The projection of the heads' output: its name in the module.
    projection: str = "proj"
    # The linear layer that makes queries, keys and values of the tokens, packed in this order, head by head: its name,
    # or None where there is no such. A host that has one calls it through ``packed``.
    in_projection: ClassVar[str | None] = None

    interaction: Any
    num_heads: int
    head_dim: int
    scale: float

    def token_width(self) -> int:
        """Channels of the tokens that come in; those that go out, unless a host knows better."""
        linear: Any = self.get_submodule(self.in_projection or self.projection)
        if isinstance(linear, nn.Conv2d):
            return linear.in_channels if self.in_projection else linear.out_channels
        out: int = linear.in_features if self.in_projection else linear.out_features
        return out

    def key_width(self) -> int:
        """Channels of a head's queries and keys; those of its values, unless a host knows better."""
        return self.head_dim

    def packed(self, x: Tensor) -> Tensor:
        """Queries, keys and values (B, N, 3, h, d) of tokens (B, N, dim), as the interaction reads them."""
        assert self.in_projection is not None
        linear: Any = self.get_submodule(self.in_projection)
        out: Tensor = self.interaction.project(self, linear, x).unflatten(
            -1, (3, self.num_heads, self.head_dim)
        )
        return out

    def read(self, *args: Any, **kwargs: Any) -> Heads:
        """Queries, keys and values of a call with these arguments."""
        raise NotImplementedError

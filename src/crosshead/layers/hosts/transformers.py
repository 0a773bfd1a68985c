"""Hugging Face's attention modules: one host for all that hand queries, keys and values to their common interface.

Those modules are written alike (ViT, DeiT, DINOv2 and v3, CLIP, SigLIP, BEiT, Swin, EoMT and more): four linear layers
by name, and between them ``ALL_ATTENTION_FUNCTIONS[config._attn_implementation](module, query, key, value, mask,
scaling=, dropout=)``. ``transformers_classes`` tells which they are.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..capabilities import Capability
from ..layer import Heads
from ..rotation import Rotation
from .parts import MadeWhenWanted, head_bias, weights_beside

# In their last blocks queries of segments stand before the picture's tokens, under a mask that is alike for all heads.
_WITH_QUERIES = {"eomt", "eomt_dinov3", "videomt"}
# Pictures of many shapes, filled up to equally many patches; texts are told by their positions.
_FILLED_UP = {"siglip2_vision_model"}


class TransformersHost(MadeWhenWanted):
    """An attention module of transformers' whose heads interact; (B, N, dim) -> ((B, N, dim), weights or None)."""

    rotates: ClassVar[Callable[..., Any] | None] = None

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        config: Any = attn.config
        found = {Capability.ROTARY} if cls.rotates else set()
        if hasattr(attn, "relative_position_bias"):
            return frozenset({Capability.BIAS, Capability.MASK})
        if config.model_type in _WITH_QUERIES | _FILLED_UP or hasattr(config, "max_position_embeddings"):
            return frozenset(found | {Capability.MASK})
        shared = ("use_relative_position_bias", "use_shared_relative_position_bias")
        if any(getattr(config, name, False) for name in shared):
            found.add(Capability.BIAS)
        return frozenset(found | {Capability.GRID})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        found = getattr(attn, "num_heads", None) or attn.num_attention_heads
        return cast(int, found), cast(int, attn.head_dim)

    @classmethod
    def adopt(cls, attn: nn.Module) -> Self:
        layer = super().adopt(attn)
        scale: Any = getattr(attn, "scaling", None) or getattr(attn, "scale", 1.0)
        layer.scale = scale
        return layer

    def read(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Heads:
        q, k, v = (
            self.get_submodule(name)(hidden_states).unflatten(-1, (self.num_heads, self.head_dim))
            for name in ("q_proj", "k_proj", "v_proj")
        )
        drop = getattr(self, "attention_dropout", None)
        drop = cast(float, self.dropout if drop is None else drop)
        own = getattr(self, "relative_position_bias", None)
        mask = _checked(attention_mask)
        bias = None if own is None else head_bias(own())
        if (
            own is None
            and mask is not None
            and mask.shape[:2] == (1, self.num_heads)
            and mask.is_floating_point()
        ):
            bias, mask = mask.squeeze(0), None  # BEiT's bias comes as a mask
        if mask is not None and cast(Any, self.config).model_type in _WITH_QUERIES:
            mask = mask[:, :1]
        causal = kwargs.get("is_causal", getattr(self, "is_causal", False))
        return Heads(
            hidden_states,
            q,
            k,
            v,
            self.scale,
            rotate=self._rotation(position_embeddings),
            bias=bias,
            window_mask=mask if own is not None else None,
            attn_mask=mask if own is None else None,
            is_causal=bool(causal) and attention_mask is None,
            dropout_p=drop if self.training else 0.0,
            weights="each" if self._gives_weights(kwargs) else None,
        )

    def write(  # type: ignore[override]
        self, out: Tensor, heads: Heads
    ) -> tuple[Tensor, Tensor | None]:
        return self.get_submodule(self.projection)(out), weights_beside(self, heads)

    def _gives_weights(self, given: dict[str, Any]) -> bool:
        """As the class does: where they are asked for, and always under the ``eager`` implementation."""
        config: Any = self.config
        asked = given.get("output_attentions", getattr(config, "output_attentions", False))
        return bool(asked) or config._attn_implementation == "eager"

    def _rotation(self, angles: tuple[Tensor, Tensor] | None) -> Rotation | None:
        rotates = type(self).rotates
        if angles is None or rotates is None:
            return None

        def turn(
            x: Tensor, both: Tensor
        ) -> Tensor:  # theirs turns queries and keys at once, behind the prefix
            sines, cosines = both.chunk(2, dim=-1)
            found: Tensor = rotates(x, x[:, :0], cosines, sines)[0]
            return found

        cosines, sines = angles
        return Rotation(turn, torch.cat([sines, cosines], dim=-1))


def _checked(mask: Any) -> Tensor | None:
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() < 3):
        raise ValueError(
            "heads that interact take masks as 'sdpa' and 'eager' make them, not those of flash or flex attention; "
            "build the model with attn_implementation='sdpa'"
        )
    return cast(Tensor | None, mask)


class SwinV2OfTransformers(TransformersHost):
    """``Swinv2Attention`` of transformers whose heads interact; (images · windows, N, dim) -> (the same, [weights])."""

    projection = "output.dense"
    self: Any  # theirs, which makes queries, keys and values
    output: Any

    @classmethod
    def brings(cls, attn: nn.Module) -> frozenset[Capability]:
        return frozenset({Capability.BIAS, Capability.MASK})

    @classmethod
    def sizes(cls, attn: nn.Module) -> tuple[int, int]:
        inner: Any = attn.self
        return inner.num_attention_heads, inner.attention_head_size

    def read(  # type: ignore[override]
        self, x: Tensor, attention_mask: Tensor | None = None, output_attentions: bool | None = False
    ) -> Heads:
        inner = self.self
        q, k, v = (
            linear(x).unflatten(-1, (self.num_heads, self.head_dim))
            for linear in (inner.query, inner.key, inner.value)
        )
        scale = torch.clamp(inner.logit_scale, max=math.log(1.0 / 0.01)).exp()
        return Heads(
            x,
            F.normalize(q, dim=-1) * scale.view(-1, 1),
            F.normalize(k, dim=-1),
            v,
            1.0,
            bias=self._position_bias(),
            window_mask=None if attention_mask is None else 2 * attention_mask,  # they add it twice
            dropout_p=inner.dropout.p if self.training else 0.0,
            weights="each" if output_attentions else None,
        )

    def write(self, out: Tensor, heads: Heads) -> tuple[Tensor, ...]:  # type: ignore[override]
        found = self.output(out, heads.tokens)
        weights = weights_beside(self, heads)
        return (found,) if weights is None else (found, weights)

    def _position_bias(self) -> Tensor:
        inner = self.self
        area = math.prod(inner.window_size)
        table = inner.continuous_position_bias_mlp(inner.relative_coords_table).view(-1, self.num_heads)
        bias = table[inner.relative_position_index.view(-1)].view(area, area, -1)
        return 16 * torch.sigmoid(bias.permute(2, 0, 1).contiguous())

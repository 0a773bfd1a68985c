"""Hugging Face's attention modules: one host for all that hand queries, keys and values to their common interface.

Those modules are written alike (ViT, DeiT, DINOv2 and v3, CLIP, SigLIP, BEiT, Swin, EoMT and more): four linear layers
by name, and between them ``ALL_ATTENTION_FUNCTIONS[config._attn_implementation](module, query, key, value, mask,
scaling=, dropout=)``. A class is taken for one of them when its ``forward`` uses no name that this host does not know:
a norm of queries, a cache, a projection of another name, in a version to come too, leaves it without a host.
"""

import inspect
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from ..attention import InteractingAttention
from ..capabilities import Capability
from ..qkv import Heads
from ..rotation import Rotation
from .parts import head_bias, weights_beside

_TAKES = {"hidden_states", "attention_mask", "position_embeddings"}
# All that such a forward says: attributes, methods and functions.
_SAYS = {
    "ALL_ATTENTION_FUNCTIONS", "get_interface", "eager_attention_forward", "config", "_attn_implementation",
    "q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "head_dim", "num_heads", "num_attention_heads", "embed_dim",
    "scale", "scaling", "dropout", "attention_dropout", "training", "is_causal",
    "apply_rotary_pos_emb", "relative_position_bias",
    "shape", "size", "view", "reshape", "transpose", "contiguous", "unsqueeze", "expand",
}  # fmt: skip
_PASSES = {"scaling", "dropout", "is_causal"}
# In their last blocks queries of segments stand before the picture's tokens, under a mask that is alike for all heads.
_WITH_QUERIES = {"eomt", "eomt_dinov3", "videomt"}
# Pictures of many shapes, filled up to equally many patches; texts are told by their positions.
_FILLED_UP = {"siglip2_vision_model"}


class TransformersHost(InteractingAttention):
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

    def __reduce_ex__(self, protocol: Any) -> Any:  # the class is made when it is wanted, and has no name
        return _blank, (self.replaced,), dict(vars(self))


def _blank(attention: type[nn.Module]) -> nn.Module:
    from ..registry import host_of

    host: Any = host_of(attention)
    found: nn.Module = host.__new__(host)
    return found


def host_for(attention: type[nn.Module]) -> type[TransformersHost] | None:
    """The host of one of transformers' classes of attention, or None for what is no such class."""
    if attention.__name__ == "Swinv2Attention":
        from .transformers_swin_v2 import SwinV2OfTransformers

        return _of_class(SwinV2OfTransformers, attention)
    if not hasattr(inspect.unwrap(attention.forward), "__code__"):  # nothing to read
        return None
    code = _code_of(attention)
    says, takes = set(code.co_names), _taken(code)
    turning = "position_embeddings" in takes
    by_interface = {"get_interface", "q_proj"} <= says and turning == ("apply_rotary_pos_emb" in says)
    if unknown_names(attention) or not by_interface:
        return None
    rotates = sys.modules[attention.__module__].__dict__.get("apply_rotary_pos_emb")
    parts: dict[str, Any] = {"projection": "o_proj" if "o_proj" in says else "out_proj"}
    if rotates is not None and turning:
        parts["rotates"] = staticmethod(rotates)
    return _of_class(TransformersHost, attention, **parts)


def unknown_names(attention: type[nn.Module]) -> list[str]:
    """What the ``forward`` of one of transformers' classes says, takes or passes on that this host doesn't know."""
    code = _code_of(attention)
    passed = {name for const in code.co_consts if isinstance(const, tuple) for name in const}
    return sorted({*code.co_names} - _SAYS | _taken(code) - _TAKES | {str(name) for name in passed} - _PASSES)


def _code_of(attention: type[nn.Module]) -> CodeType:
    forward: Any = inspect.unwrap(attention.forward)
    found: CodeType = forward.__code__
    return found


def _taken(code: CodeType) -> set[str]:
    return {*code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]}


def _of_class(
    host: type[TransformersHost], attention: type[nn.Module], **parts: Any
) -> type[TransformersHost]:
    return type(f"Interacting{attention.__name__}", (host, attention), parts)


def _checked(mask: Any) -> Tensor | None:
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() < 3):
        raise ValueError(
            "heads that interact take masks as 'sdpa' and 'eager' make them, not those of flash or flex attention; "
            "build the model with attn_implementation='sdpa'"
        )
    return cast(Tensor | None, mask)

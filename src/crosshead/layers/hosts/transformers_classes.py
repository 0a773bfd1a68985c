"""Which of transformers' classes of attention have a host.

A class is taken for one of those of their common interface when its ``forward`` uses no name that ``TransformersHost``
does not know: a norm of queries, a cache, a projection of another name, in a version to come too, leaves it without a
host.
"""

import inspect
import sys
from types import CodeType
from typing import Any

from torch import nn

from .transformers import SwinV2OfTransformers, TransformersHost

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


def host_for(attention: type[nn.Module]) -> type[TransformersHost] | None:
    """The host of one of transformers' classes of attention, or None for what is no such class."""
    if attention.__name__ == "Swinv2Attention":
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
    """What the ``forward`` of one of transformers' classes says, takes or passes on that its host doesn't know."""
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

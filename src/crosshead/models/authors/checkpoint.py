"""Reads a checkpoint file of the MOHSA authors' code, finds out which model it is of, and builds that."""

import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from .cait import convert_cait
from .parts import Converter, State
from .swin import convert_swin
from .vit import convert_vit

# A tensor that only this architecture has -> its converter.
CONVERTERS: dict[str, Converter] = {
    "transformer.layers.0.0.fn.to_qkv.weight": convert_vit,
    "patch_transformer.layers.0.0.fn.fn.to_q.weight": convert_cait,
    "layers.0.blocks.0.attn.relative_position_bias_table": convert_swin,
}


@dataclass(frozen=True)
class AuthorsCheckpoint:
    """A model with its weights, and what ``timm.create_model(name, **args)`` needs to build it again."""

    model: nn.Module
    name: str
    args: dict[str, Any]


def load_authors_checkpoint(
    path: str | os.PathLike[str], *, num_heads: int | None = None
) -> AuthorsCheckpoint:
    """Reads a checkpoint (.pth or .pt) of the authors' ViT, CaiT or Swin; nothing in the file is run.

    A Swin checkpoint tells its image size by the shift masks in it; without them the model takes 224 pixels, until
    its ``set_input_size`` is called.

    Args:
        path: the file, as their training writes it (weights under ``model``) or a bare state dict.
        num_heads: heads of the model; found from the weights unless given. Give it for a ViT whose blocks all overlap
            alike.

    Raises:
        ValueError: where the file can't be read, is of another model, or its heads can't be told.
    """
    return from_authors_state(_read_state(path), num_heads=num_heads)


def from_authors_state(state: State, *, num_heads: int | None = None) -> AuthorsCheckpoint:
    """As ``load_authors_checkpoint``, from a state dict under the authors' names."""
    for marker, convert in CONVERTERS.items():
        if marker in state:
            try:
                name, args, weights = convert(state, num_heads)
                model = timm.create_model(name, **args)
                model.load_state_dict(weights)
            except KeyError as error:
                raise ValueError(
                    f"this checkpoint is not whole: it has no tensor {error.args[0]!r}"
                ) from error
            except RuntimeError as error:  # load_state_dict's
                raise ValueError(
                    f"the tensors of this checkpoint make no {name}: {' '.join(str(error).split())}"
                ) from error
            return AuthorsCheckpoint(model.eval(), name, args)
    shown = ", ".join(sorted(state)[:4])
    raise ValueError(
        f"not a checkpoint of the authors' code: wanted a tensor named {' or '.join(CONVERTERS)}, got {shown}, ..."
    )


def _read_state(path: str | os.PathLike[str]) -> State:
    try:
        # Their training code stores its configuration beside the weights; a plain dictionary stands in for its class.
        with torch.serialization.safe_globals([(OrderedDict, "yacs.config.CfgNode")]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path}: not a checkpoint that can be read without running code from it ({reason}); save its state dict "
            "alone, with torch.save(model.state_dict(), PATH)"
        ) from error
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path}: wanted a state dict, alone or under 'model', got {type(state).__name__}")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}

"""Reads a checkpoint file of the MOHSA authors' code, finds out which model it is of, and builds that."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from torch import nn

from ..weight_files import described, read_content, states_in
from .converters import convert_cait, convert_swin, convert_vit
from .parts import Converter, State

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
        f"not a checkpoint of the authors' code: expected a tensor named {' or '.join(CONVERTERS)}, got {shown}, ..."
    )


def has_marks(state: State) -> bool:
    """Whether ``state`` has names that the authors' code gives."""
    return any(marker in state for marker in CONVERTERS)


def _read_state(path: str | os.PathLike[str]) -> State:
    content = read_content(Path(path))
    states = states_in(content)
    if not states:
        raise ValueError(f"{path}: expected a state dict, alone or under 'model', found {described(content)}")
    return dict(next((each.tensors for each in states if has_marks(dict(each.tensors))), states[0].tensors))

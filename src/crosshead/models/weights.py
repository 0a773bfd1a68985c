"""Weights that a model starts from: files of this library, timm or the MOHSA authors, folders as hubs have them."""

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

from .authors import load_authors_checkpoint

_logger = logging.getLogger(__name__)

_PICKLED = (".pth", ".pt", ".bin")
_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")  # of timm's models on a hub
_CONFIG = "config.json"


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the file that they are from."""

    file: Path
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Weights":
        """From a safetensors file, a pickled state (.pth, .pt, .bin; nothing in it is run), a checkpoint of the MOHSA
        authors' code, or a folder with ``model.safetensors`` or ``pytorch_model.bin`` in it.

        Raises:
            ValueError: it can't be read as any of them.
        """
        file = weights_file(path)
        return cls(file, _pickled(file) if file.suffix in _PICKLED else _safetensors(file))

    def fits(self, model: nn.Module) -> bool:
        """Whether ``load`` would succeed."""
        return not differences_of(model.state_dict(), self._for(model, new_classifier=True))

    def load(self, model: nn.Module, *, new_classifier: bool = True) -> None:
        """Loads them into ``model``; see ``load_weights``."""
        own, weights = model.state_dict(), self._for(model, new_classifier=new_classifier)
        if differences := differences_of(own, weights):
            raise ValueError(
                f"{self.file} holds the weights of another model: {'; '.join(differences[:3])}"
                f"{f' and {len(differences) - 3} more' if len(differences) > 3 else ''}; "
                "wanted those of the model, depth, widths, image size and overlap schedule of the recipe"
                + (
                    f"; `crosshead convert {self.file}` prints the model section of theirs"
                    if self.file.suffix in _PICKLED
                    else ""
                )
            )
        anew = [name for name in own if weights[name] is own[name]]
        if anew:
            _logger.warning("%s: %s is for other classes and starts anew", self.file, ", ".join(anew))
        model.load_state_dict(weights)

    def covers(self, model: nn.Module) -> bool:
        """Whether there is a tensor for every one of ``model``, a backbone."""
        own, weights = model.state_dict(), self._for(model, new_classifier=True)
        return all(name in weights and weights[name].shape == own[name].shape for name in own)

    def load_backbone(self, model: nn.Module) -> tuple[list[str], list[str]]:
        """Loads what ``model``, a backbone, has the place for; the names that were missing, and those left over.

        Raises:
            ValueError: a tensor has another shape, or none fits; the model is as it was.
        """
        own, weights = model.state_dict(), self._for(model, new_classifier=True)
        missing, unused = [n for n in own if n not in weights], [n for n in weights if n not in own]
        taken = {name: tensor for name, tensor in weights.items() if name in own}
        differences = [
            f"{name} has shape {tuple(tensor.shape)}, wanted {tuple(own[name].shape)}"
            for name, tensor in taken.items()
            if tensor.shape != own[name].shape
        ]
        if differences or not taken:
            raise ValueError(
                f"{self.file} holds the weights of another model: "
                f"{'; '.join(differences[:3]) or 'no tensor has a name of its own'}; wanted those of the recipe's "
                "backbone, as a classifier's run saves them"
            )
        model.load_state_dict(taken, strict=False)
        return missing, unused

    def _for(self, model: nn.Module, *, new_classifier: bool) -> dict[str, Tensor]:
        """The tensors as ``model`` wants them to start from: timm's changes of names, positions for another image size,
        a first convolution for other channels, and a classifier for other classes from ``model`` itself."""
        own, weights = model.state_dict(), dict(self.tensors)
        if not new_classifier:
            return weights
        if differences_of(own, weights) and (adapt := _timms_filter(model)) is not None:
            try:
                weights = dict(adapt(dict(weights), model))
            except Exception as error:  # written for timm's own files: it may trip over any other
                _logger.debug("timm's filter does not take %s: %s", self.file, error)
        first = f"{getattr(model, 'pretrained_cfg', {}).get('first_conv')}.weight"
        if first in weights and first in own and weights[first].shape[1] != own[first].shape[1]:
            weights[first] = adapt_input_conv(own[first].shape[1], weights[first])
        heads = tuple(f"{name}." for name in classifier_names(model))
        for name in [name for name in own if name.startswith(heads)]:
            if name not in weights or weights[name].shape != own[name].shape:
                weights[name] = own[name]
        return weights


def load_weights(model: nn.Module, path: str | os.PathLike[str], *, new_classifier: bool = True) -> None:
    """Loads a file or folder of weights (see ``Weights.read``) into ``model``.

    Where ``new_classifier`` allows it, the weights may be for other classes, channels and image sizes: the classifier
    then starts anew, and timm adapts the rest.

    Raises:
        ValueError: where the file can't be read, or holds the weights of another model; the first differences are
            named, and the model is as it was.
    """
    Weights.read(path).load(model, new_classifier=new_classifier)


def weights_file(path: str | os.PathLike[str]) -> Path:
    """``path``, or the file of weights in the folder that it is; ValueError for a folder without one."""
    path = Path(path)
    if not path.is_dir():
        return path
    for name in _IN_FOLDERS:
        if (path / name).is_file():
            return path / name
    raise ValueError(
        f"{path}: no weights in this folder; wanted {' or '.join(_IN_FOLDERS)}, or a run's folder"
    )


def pretrained_config(name: str, path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """How pictures were prepared for the weights: mean, std, interpolation, crop_pct, input_size, as timm has them.

    Of the ``config.json`` beside the weights at ``path`` if there is one, else of timm's model ``name``.
    """
    own = timm.get_pretrained_cfg(name)
    config = {} if own is None else own.to_dict()
    beside = None if path is None else (Path(path) if Path(path).is_dir() else Path(path).parent) / _CONFIG
    if beside is not None and beside.is_file():
        try:
            content = json.loads(beside.read_text(encoding="utf-8"))
            config |= content.get("pretrained_cfg", content)
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{beside}: damaged ({error}); wanted timm's configuration as JSON") from error
    return config


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """The modules of ``model`` that tell classes apart, as timm's configuration of it has them."""
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{file}: not a readable safetensors file ({error}); wanted weights as training writes them, a folder of "
            "timm's, or a checkpoint of timm's or the MOHSA authors' code (.pth, .pt or .bin)"
        ) from error


def _pickled(file: Path) -> dict[str, Tensor]:
    """A checkpoint of the authors' code or, where it is none, a state by timm's names."""
    try:
        return dict(load_authors_checkpoint(file).model.state_dict())
    except ValueError as theirs:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception:
            raise theirs from None
        for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
            state = state.get(key, state) if isinstance(state, dict) else state
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise theirs
        state = {name.removeprefix("module."): value for name, value in state.items()}
        if not any(
            name.startswith(("blocks.", "layers.", "stages.", "patch_embed.", "stem.")) for name in state
        ):
            raise theirs
        return state


def _timms_filter(model: nn.Module) -> Callable[[dict[str, Tensor], nn.Module], Mapping[str, Tensor]] | None:
    """The function with which timm brings a checkpoint's names and positions to those of ``model``."""
    for each in type(model).__mro__:
        if each.__module__.startswith("timm.models."):
            found = getattr(sys.modules[each.__module__], "checkpoint_filter_fn", None)
            if found is not None:
                return found
    return None


def differences_of(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """How ``weights`` differ from what a model wants, one sentence each."""
    found = [
        f"{name} has shape {tuple(weights[name].shape)}, wanted {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    found += [f"{name} is missing" for name in own if name not in weights]
    return found + [f"{name} is not in the model" for name in weights if name not in own]

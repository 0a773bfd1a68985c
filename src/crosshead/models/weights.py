"""Weights that a model starts from: files of this library, timm, Hugging Face or the MOHSA authors, folders of hubs."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

from crosshead.files import read_json

from .authors import has_marks
from .fitting import Fit, best_fit
from .weight_files import State, described, read_content, states_in

_logger = logging.getLogger(__name__)

_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")  # of timm's models on a hub
_CONFIG = "config.json"
_PRETEXT = ("decoder_", "mask_token")  # of masked autoencoders: of no use after pretraining


@dataclass(frozen=True)
class Weights:
    """What a file has of tensors by name, and the file; which of them are taken is decided by the model."""

    file: Path
    content: Any
    states: tuple[State, ...]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Weights":
        """From safetensors or a pickled checkpoint, whatever its name ends in (nothing in it is run), or a folder with
        ``model.safetensors`` or ``pytorch_model.bin`` in it.

        Raises:
            ValueError: it can't be read, or there are no tensors in it.
        """
        file = weights_file(path)
        content = read_content(file)
        states = tuple(states_in(content))
        if not states:
            raise ValueError(
                f"{file}: no weights in it; expected tensors by name, found {described(content)}"
            )
        return cls(file, content, states)

    def fits(self, model: nn.Module) -> bool:
        """Whether ``load`` would succeed."""
        return not differences_of(model.state_dict(), self._for_classifier(model)[1])

    def load(self, model: nn.Module, *, new_classifier: bool = True) -> str:
        """Loads them into ``model``; see ``load_weights``."""
        own = model.state_dict()
        fit, weights = (
            self._for_classifier(model) if new_classifier else self._for(model, new_classifier=False)
        )
        if differences := differences_of(own, weights):
            more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
            raise ValueError(
                f"{self.file} holds the weights of another model: {'; '.join(differences[:3])}{more}; found "
                f"{self._found(fit, own)}; "
                "expected those of the model, depth, widths, image size and overlap schedule of the recipe"
                + self._hint()
            )
        if wrong := [
            name for name, each in weights.items() if each.is_floating_point() and each.isnan().any()
        ]:
            raise ValueError(
                f"{self.file}: {len(wrong)} of the {len(weights)} tensors hold NaN, {wrong[0]} for one: the training "
                "that they are of went wrong; take an earlier checkpoint"
            )
        anew = [name for name in own if weights[name] is own[name]]
        if anew:
            _logger.warning("%s: %s is for other classes and starts anew", self.file, ", ".join(anew))
        self._tell(fit)
        model.load_state_dict(weights)
        return fit.place

    def covers(self, model: nn.Module) -> bool:
        """Whether there is a tensor for every one of ``model``, a backbone."""
        own, (_, weights) = model.state_dict(), self._for(model, new_classifier=True)
        return all(name in weights and weights[name].shape == own[name].shape for name in own)

    def load_backbone(self, model: nn.Module) -> tuple[list[str], list[str]]:
        """Loads what ``model``, a backbone, has the place for; the names that were missing, and those left over.

        Raises:
            ValueError: a tensor has another shape, or none fits; the model is as it was.
        """
        own, (fit, weights) = model.state_dict(), self._for(model, new_classifier=True)
        missing, unused = [n for n in own if n not in weights], [n for n in weights if n not in own]
        taken = {name: tensor for name, tensor in weights.items() if name in own}
        differences = [
            f"{name} has shape {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
            for name, tensor in taken.items()
            if tensor.shape != own[name].shape
        ]
        if differences or not taken:
            raise ValueError(
                f"{self.file} holds the weights of another model: "
                f"{'; '.join(differences[:3]) or 'no tensor has a name of its own'}; found {self._found(fit, own)}; "
                "expected those of the recipe's backbone, as a classifier's run saves them"
            )
        self._tell(fit)
        model.load_state_dict(taken, strict=False)
        return missing, unused

    def _for_classifier(self, model: nn.Module) -> tuple[Fit, dict[str, Tensor]]:
        """``_for`` without what belongs to another head, or to what the weights were trained for before."""
        own, (fit, weights) = model.state_dict(), self._for(model, new_classifier=True)
        spare = (*_PRETEXT, *(f"{name}." for name in classifier_names(model)))
        return fit, {n: t for n, t in weights.items() if n in own or not n.startswith(spare)}

    def _for(self, model: nn.Module, *, new_classifier: bool) -> tuple[Fit, dict[str, Tensor]]:
        """The tensors as ``model`` wants them to start from, and where they are from: by timm's names, with positions
        for another image size, a first convolution for other channels, and a classifier for other classes from
        ``model`` itself."""
        own = model.state_dict()
        adapt = _timms_filter(model) if new_classifier else None
        fit = best_fit(own, self.states, lambda names: self._adapted(adapt, names, model), self.file)
        weights = dict(fit.tensors)
        if not new_classifier:
            return fit, weights
        if differences_of(own, weights):
            weights = self._adapted(adapt, weights, model)
        first = f"{getattr(model, 'pretrained_cfg', {}).get('first_conv')}.weight"
        if first in weights and first in own and weights[first].shape[1] != own[first].shape[1]:
            weights[first] = adapt_input_conv(own[first].shape[1], weights[first])
        heads = tuple(f"{name}." for name in classifier_names(model))
        for name in [name for name in own if name.startswith(heads)]:
            if name not in weights or weights[name].shape != own[name].shape:
                weights[name] = own[name]
        return fit, weights

    def _adapted(
        self, adapt: "_Filter | None", weights: Mapping[str, Tensor], model: nn.Module
    ) -> dict[str, Tensor]:
        if adapt is None:
            return dict(weights)
        try:
            return dict(adapt(dict(weights), model))
        except Exception as error:  # written for timm's own files: it may trip over any other
            _logger.debug("timm's filter does not take %s: %s", self.file, error)
            return dict(weights)

    def _found(self, fit: Fit, own: Mapping[str, Tensor]) -> str:
        names = [name for name in fit.tensors if name not in own]
        theirs = f", which have such names as {', '.join(names[:3])}" if names else ""
        return (
            f"{described(self.content)}, and under {fit.place} {fit.names} of the model's {len(own)} names among "
            f"{len(fit.tensors)} tensors{theirs}"
        )

    def _hint(self) -> str:
        theirs = any(has_marks(dict(state.tensors)) for state in self.states)
        return f"; `crosshead convert {self.file}` prints the model section of theirs" if theirs else ""

    def _tell(self, fit: Fit) -> None:
        level = logging.WARNING if fit.others else logging.INFO
        besides = f"; left out are those under {', '.join(fit.others)}" if fit.others else ""
        _logger.log(level, "%s: the weights under %s are taken%s", self.file, fit.place, besides)


def load_weights(model: nn.Module, path: str | os.PathLike[str], *, new_classifier: bool = True) -> str:
    """Loads a file or folder of weights (see ``Weights.read``) into ``model``.

    They are looked for under whatever keys and prefixes the file has (``state_dict``, ``backbone.``): those
    are taken that fit most of the model's names, averaged ones (``ema``, ``teacher``) before plain ones, as timm does,
    and plain ones before a ``student``'s. Hugging Face's and the MOHSA authors' names are turned into timm's.

    Where ``new_classifier`` allows it, the weights may be for other classes, channels and image sizes: the classifier
    then starts anew, and timm adapts the rest.

    Returns:
        Where in the file they were, in words.

    Raises:
        ValueError: where the file can't be read, holds the weights of another model, or of several that fit alike; the
            first differences are named, and the model is as it was.
    """
    return Weights.read(path).load(model, new_classifier=new_classifier)


def weights_file(path: str | os.PathLike[str]) -> Path:
    """``path``, or the file of weights in the folder that it is; ValueError for a folder without one."""
    path = Path(path)
    if not path.is_dir():
        return path
    for name in _IN_FOLDERS:
        if (path / name).is_file():
            return path / name
    raise ValueError(
        f"{path}: no weights in this folder; expected {' or '.join(_IN_FOLDERS)}, or a run's folder"
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
            content = read_json(beside)
            config |= content.get("pretrained_cfg", content)
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{beside}: damaged ({error}); expected timm's configuration as JSON") from error
    return config


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """The modules of ``model`` that tell classes apart, as timm's configuration of it has them."""
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


_Filter = Callable[[dict[str, Tensor], nn.Module], Mapping[str, Tensor]]


def _timms_filter(model: nn.Module) -> _Filter | None:
    """The function with which timm brings a checkpoint's names and positions to those of ``model``."""
    for each in type(model).__mro__:
        if each.__module__.startswith("timm.models."):
            found = getattr(sys.modules[each.__module__], "checkpoint_filter_fn", None)
            if found is not None:
                out: _Filter = found
                return out
    return None


def differences_of(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """How ``weights`` differ from what a model wants, one sentence each."""
    found = [
        f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    found += [f"{name} is missing" for name in own if name not in weights]
    return found + [f"{name} is not in the model" for name in weights if name not in own]

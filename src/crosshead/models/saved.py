"""Models in folders: weights, and what is needed to build them again, swapped ones included.

    config.json          timm's format: architecture, arguments, classes, preparation of pictures
    model.safetensors    the weights; of swapped models of transformers' crosshead.safetensors, since transformers'
                         from_pretrained would take them, build the model without the interactions and say little of it

``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads such a folder too once ``crosshead`` is imported: a
model that was swapped is an architecture of its own there, ``crosshead_swapped``, whose arguments name the model that
it is made of and its interactions.
"""

import contextlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.layers import get_act_layer
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from crosshead.files import read_json
from crosshead.formats import NewerFormat, numbered, read_numbered

from ..swap import (
    SWAPPED,
    apply_interactions,
    check_no_adapters,
    check_whole,
    interactions_of,
    plain_path,
    unwrapped,
)
from .torchvision_models import built_by_torchvision, described_by, is_torchvisions, names_torchvisions
from .transformers_models import built, described, is_named, is_theirs
from .twins import compute_alike
from .variants import own_arguments
from .weights import differences_of

_logger = logging.getLogger(__name__)

CONFIG, WEIGHTS, NOT_THEIRS = "config.json", "model.safetensors", "crosshead.safetensors"
# What is kept of timm's configuration of a model: where it begins and ends, how its pictures are prepared.
_KEPT = (
    "first_conv",
    "classifier",
    "input_size",
    "mean",
    "std",
    "interpolation",
    "crop_pct",
    "crop_mode",
    "fixed_input_size",
    "label_names",
)

default_cfgs = generate_default_cfgs({SWAPPED: {}})


@register_model
def crosshead_swapped(
    pretrained: bool = False, *, name: str, interactions: Sequence[Mapping[str, Any]], **kwargs: Any
) -> nn.Module:
    """timm's model ``name`` with the interactions of ``crosshead.swap.interactions_of`` in its attention."""

    def build(**arguments: Any) -> nn.Module:
        model = _create(name, arguments)
        apply_interactions(model, interactions)
        return model

    model = build_model_with_cfg(build, SWAPPED, pretrained, **kwargs)
    model.created_with = {  # type: ignore[assignment]
        "name": name,
        "interactions": interactions,
        **own_arguments(kwargs),
    }
    return model


def save(
    model: nn.Module,
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    args: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    preparation: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a model of timm's registry, of transformers or of torchvision, swapped or not, to a folder.

    ``crosshead.load`` gives it back.

    Args:
        model: made by ``timm.create_model``, by a recipe, by a class of transformers' or by ``torchvision.models``;
            compiled or not, with or without DDP around it.
        folder: made where it is not there; its two files are replaced.
        name: of torchvision's models alone, which don't know theirs: ``"torchvision/vit_b_16"``.
        args: what the model was created with beside ``num_classes``, ``in_chans`` and ``image_size``, where it doesn't
            remember it: timm's do since 1.0.31, this library's always did, torchvision's never.
        classes: names, in the order of the outputs.
        preparation: of pictures, over what timm knows of the model: ``mean``, ``std``, ``input_size``,
            ``interpolation``, ``crop_pct``.

    Raises:
        ValueError: where no model like this one can be built from what is known; the first difference is named. The
            model that is built again has to have the same names and shapes, and to compute the same on a picture.
            PEFT's adapters and parameters that FSDP has sharded are refused, with what to call.
    """
    model = unwrapped(model)
    check_no_adapters(model)
    check_whole(model, "save")
    config = _config(model, name, dict(args or {}), classes, preparation or {})
    weights = {
        plain_path(name): t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()
    }
    _check_twin(model, weights, config)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The configuration last: a folder with one is whole.
    kept = _weights_name(config)
    _replace(folder / kept, lambda path: save_file(weights, path))
    _replace(folder / CONFIG, lambda path: path.write_text(json.dumps(numbered(config), indent=2)))
    for other in {WEIGHTS, NOT_THEIRS} - {kept}:  # of what was saved here before
        (folder / other).unlink(missing_ok=True)
    return folder


def _check_twin(model: nn.Module, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """ValueError where what ``load_saved`` would build from ``config`` is not ``model``."""
    name, args = config["architecture"], config["model_args"]
    remedy = "give save(..., args=...) what it was created with"
    with torch.random.fork_rng(devices=[]):
        try:
            twin = _create(name, args)
        except (TypeError, RuntimeError, ValueError, AssertionError) as error:
            raise ValueError(f"{name} can't be built again with {args}: {error}; {remedy}") from error
    if differences := differences_of(twin.state_dict(), weights):
        raise ValueError(f"{name} with {args} is another model: {'; '.join(differences[:3])}; {remedy}")
    size = _picture_size(model, config)
    try:
        alike = compute_alike(model, twin, size)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        _logger.warning("saved without a trial run, since the model takes no picture of %s: %s", size, error)
        return
    if not alike:
        raise ValueError(
            f"{name} with {args} is another model: names and shapes are the same, and its outputs are others (such "
            f"arguments as num_heads, act_layer or global_pool leave no trace in the weights); {remedy}"
        )


def _picture_size(model: nn.Module, config: Mapping[str, Any]) -> tuple[int, int, int]:
    """(channels, height, width) that the model takes."""
    args, cfg = (
        config["model_args"],
        {**(getattr(model, "pretrained_cfg", None) or {}), **config["pretrained_cfg"]},
    )
    channels, *sides = cfg.get("input_size") or (3, 224, 224)
    inner = getattr(model, "timm_model", model)  # transformers' wrapper of timm's models
    wanted = getattr(getattr(inner, "patch_embed", None), "img_size", None) or args.get("img_size") or sides
    height, width = wanted if isinstance(wanted, list | tuple) else (wanted, wanted)
    return args.get("in_chans", channels), height, width


def load_saved(folder: str | os.PathLike[str]) -> nn.Module:
    """The model of a folder that ``save`` wrote, in evaluation mode; ``pretrained_cfg`` has classes and preparation.

    Raises:
        ValueError: where there is none, or its two files don't belong together.
    """
    folder = Path(folder)
    try:
        config = read_numbered(read_json(folder / CONFIG), folder / CONFIG)
        file = folder / _weights_name(config)
        weights = load_file(file)
    except NewerFormat:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"{folder} holds no saved model: {error}; expected what crosshead.save wrote"
        ) from error
    if not {"architecture", "model_args", "pretrained_cfg"} <= config.keys():
        raise ValueError(
            f"{folder / CONFIG} is not of crosshead.save, which writes architecture, model_args and pretrained_cfg; a "
            "folder in timm's format is for timm.create_model('local-dir:FOLDER', pretrained=True)"
        )
    try:
        model = _create(config["architecture"], config["model_args"])
    except (
        TypeError,
        RuntimeError,
        KeyError,
    ) as error:  # timm's, for arguments and for names that it doesn't know
        raise ValueError(f"{folder / CONFIG} can't be built: {error}") from error
    if differences := differences_of(model.state_dict(), weights):
        raise ValueError(f"{file} is not of {folder / CONFIG}: {'; '.join(differences[:3])}")
    widths = {t.dtype for t in weights.values() if t.is_floating_point()}
    if len(widths) == 1:  # a model in half precision comes back in half precision
        model.to(widths.pop())
    model.load_state_dict(weights)
    cfg = getattr(model, "pretrained_cfg", None) or {}
    kept = {key: value for key, value in config["pretrained_cfg"].items() if key in _KEPT}
    model.pretrained_cfg = {**cfg, **kept}  # type: ignore[assignment]
    return model.eval()


def _weights_name(config: Mapping[str, Any]) -> str:
    theirs = is_named(str(config.get("architecture"))) and config["model_args"].get("interactions")
    return NOT_THEIRS if theirs else WEIGHTS


def _config(
    model: nn.Module,
    called: str | None,
    args: dict[str, Any],
    classes: Sequence[str] | None,
    preparation: Mapping[str, Any],
) -> dict[str, Any]:
    cfg: dict[str, Any] = dict(getattr(model, "pretrained_cfg", None) or {})
    if is_torchvisions(model):
        config = described_by(_torchvisions_name(model, called or cfg.get("architecture")), model)
        config["model_args"] |= args
        return _with_preparation(config, config["pretrained_cfg"] | cfg, classes, preparation)
    if called is not None:
        raise ValueError(
            f"name={called!r} is for torchvision's models; {type(model).__name__} is none of them"
        )
    if is_theirs(model):
        config = described(model)
        cfg = config["pretrained_cfg"] | cfg
        return _with_preparation(config, cfg, classes, preparation)
    name, given = _origin(model, cfg)
    given |= {"num_classes": model.num_classes, **args}
    config = {"architecture": name, "num_classes": model.num_classes, "model_args": given}
    interactions = interactions_of(model)
    with torch.device("meta"):
        as_built = interactions_of(_create(name, _plain_data(given)))
    if _plain_data(interactions) != _plain_data(as_built):
        swapped = {"name": name, **given, "interactions": interactions}
        config |= {"architecture": SWAPPED, "model_args": swapped}
    return _with_preparation(config, cfg, classes, preparation)


def _torchvisions_name(model: nn.Module, called: str | None) -> str:
    if called is None or not names_torchvisions(called):
        raise ValueError(
            f"expected the name by which torchvision's {type(model).__name__} can be built again, got {called!r}; call "
            "save(..., name='torchvision/vit_b_16'), with args= for what else torchvision.models.get_model was given"
        )
    return called


def _with_preparation(
    config: Mapping[str, Any],
    cfg: Mapping[str, Any],
    classes: Sequence[str] | None,
    preparation: Mapping[str, Any],
) -> dict[str, Any]:
    kept = {key: cfg[key] for key in _KEPT if cfg.get(key) is not None} | dict(preparation)
    if classes is not None:
        kept["label_names"] = list(classes)
    out: dict[str, Any] = _plain_data({**config, "pretrained_cfg": kept})
    return out


def _origin(model: nn.Module, cfg: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name in timm's registry that a model was made by, and with which arguments, as far as timm remembers."""
    name = cfg.get("architecture")
    if not name or not timm.is_model(name):
        raise ValueError(
            f"{type(model).__name__} is not a model of timm's registry, of transformers or of torchvision, and so "
            "can't be built again by name; save its state_dict and crosshead.swap.interactions_of(model) as JSON, "
            "and call apply_interactions(model, held) and load_state_dict on one that you build"
        )
    remembered = {**getattr(model, "created_with", {}), **getattr(model, "_model_args", {})}
    given = own_arguments(remembered)
    if name == SWAPPED:
        name = given.pop("name")
        given.pop("interactions")
    first = dict(model.named_modules()).get(str(cfg.get("first_conv")))
    if "in_chans" not in given and hasattr(first, "in_channels"):
        given["in_chans"] = first.in_channels  # type: ignore[union-attr]
    return name, given


def _plain_data(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, default=_layer_name))
    except TypeError as error:
        raise ValueError(
            f"the model's arguments can't be written as JSON: {error}; give save(..., args=...) a name that timm "
            "knows, such as act_layer='relu'"
        ) from error


def _layer_name(layer: Any) -> str:
    """timm's name of an activation. Of a norm it would not be enough: timm's has another epsilon than PyTorch's."""
    name = getattr(layer, "__name__", "").lower()
    with contextlib.suppress(KeyError, AssertionError, ValueError, TypeError):
        if name and issubclass(get_act_layer(name), layer):
            return name
    raise TypeError(f"{layer!r} has no name")


def _create(name: str, args: Mapping[str, Any]) -> nn.Module:
    """The model without weights. What a folder says is data: no name that is an address, and nothing to fetch."""
    if is_named(name):
        return built(name, args)
    if names_torchvisions(name):
        return built_by_torchvision(name, args)
    if not timm.is_model(name):
        raise RuntimeError(f"Unknown model {name!r}; expected a name of timm's registry")
    return timm.create_model(name, **own_arguments(args), pretrained=False)


def _replace(path: Path, write: Any) -> None:
    """Written aside and renamed, so that what was there stays where writing fails."""
    aside = path.with_name(f".{path.name}.writing")
    write(aside)
    os.replace(aside, path)

"""From a recipe's ``model`` section to a module: the one place where that happens."""

import logging
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Protocol

import timm
from torch import nn

from ..layers.registry import interaction_class
from ..swap import swap_attention
from .weights import Weights

_logger = logging.getLogger(__name__)


class InteractionSettings(Protocol):
    """What ``swap_attention`` is called with; ``recipe.schema.InteractionConfig`` is one."""

    @property
    def kind(self) -> str: ...
    @property
    def init(self) -> Any: ...
    @property
    def blocks(self) -> list[int] | None: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


class ModelSettings(Protocol):
    """What a model is built from; ``recipe.schema.ModelConfig`` is one."""

    @property
    def name(self) -> str: ...
    @property
    def overlap(self) -> Any: ...
    @property
    def drop_path_rate(self) -> float: ...
    @property
    def args(self) -> Mapping[str, Any]: ...
    @property
    def interaction(self) -> InteractionSettings | None: ...
    @property
    def init_from(self) -> str | None: ...


def build_model(
    model: ModelSettings,
    *,
    num_classes: int,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    from_weights: bool = True,
) -> nn.Module:
    """The model of timm's registry that ``model`` names, its attention swapped where it says so.

    Args:
        model: name and options, see ``ModelSettings``.
        num_classes: outputs of the classifier.
        in_chans: channels of the images.
        img_size: their side in pixels, or (height, width). Models that take any size don't need it.
        from_weights: False leaves the weights that ``model`` starts from where they are, ``pretrained`` ones too: a
            checkpoint follows, which has them all.

    Raises:
        ValueError: for an unknown name, options that the model doesn't know or that contradict the data, or weights
            of another model.
    """
    if not timm.is_model(model.name):
        raise ValueError(_unknown_model(model.name))
    _check_against_data(model.args, num_classes, in_chans, img_size)
    args = dict(model.args, num_classes=num_classes, in_chans=in_chans)
    if not from_weights:
        args.pop("pretrained", None)
    if img_size is not None:
        args.pop("img_size", None)
    if model.drop_path_rate:
        args["drop_path_rate"] = model.drop_path_rate
    options = _interaction_options(model)
    if model.overlap is not None and model.interaction is None:
        args["overlap"] = model.overlap
    module = _create(model.name, args, img_size)
    first = Weights.read(model.init_from) if model.init_from and from_weights else None
    # Weights of a model that was swapped already have its names, and are loaded after the swap; others before.
    before = first is not None and (model.interaction is None or first.fits(module))
    if first is not None and before:
        first.load(module)
    if model.interaction is not None:
        how = model.interaction
        report = swap_attention(module, how.kind, blocks=how.blocks, init=how.init, **options)
        _logger.info("%s", report)
    if first is not None and not before:
        first.load(module)
    return module


def _interaction_options(model: ModelSettings) -> dict[str, Any]:
    """The options of ``model.interaction``, that of ``model.overlap`` included."""
    if model.interaction is None:
        if model.overlap is not None and not model.name.startswith("mohsa_"):
            raise ValueError(
                f"model.overlap is {model.overlap!r}, and {model.name} has no overlapped heads; use a mohsa_* model, "
                "or put them in with model.interaction.kind=overlap"
            )
        return {}
    options = dict(model.interaction.options)
    if model.overlap is None:
        return options
    if "overlap" in options:
        raise ValueError(
            f"model.overlap is {model.overlap!r} and model.interaction.overlap {options['overlap']!r}; give one of them"
        )
    interaction_class(model.interaction.kind).check_options(["overlap"])
    return options | {"overlap": model.overlap}


def _check_against_data(
    args: Mapping[str, Any], num_classes: int, in_chans: int, img_size: int | tuple[int, int] | None
) -> None:
    """The data decides these three; a recipe may say them too, to be sure that they are what it expects."""
    for key, given, what in (
        ("num_classes", num_classes, f"the data has {num_classes} classes"),
        ("in_chans", in_chans, f"the images have {in_chans} channels (data.channels)"),
        ("img_size", img_size, f"the images have a size of {img_size} (data.image_size)"),
    ):
        own = args.get(key)
        if own is not None and given is not None and _sides(own) != _sides(given):
            raise ValueError(
                f"model.args.{key} is {own!r}, and {what}: give the data that the recipe is for, or leave the key out"
            )


def _sides(size: Any) -> tuple[Any, Any]:
    return tuple(size) if isinstance(size, list | tuple) else (size, size)  # type: ignore[return-value]


def _create(name: str, args: dict[str, Any], img_size: int | tuple[int, int] | None) -> nn.Module:
    """Convolutional models of timm take any image size and know no ``img_size``; they are built without it."""
    try:
        try:
            return timm.create_model(name, **args, img_size=img_size)
        except TypeError as error:
            if "'img_size'" not in str(error):
                raise
            return timm.create_model(name, **args)
    except TypeError as error:
        raise ValueError(
            f"model {name} does not take what the recipe gives it: {error}; see model.args"
        ) from error


def _unknown_model(name: str) -> str:
    near = get_close_matches(name, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"no model {name!r} in timm's registry; {hint}`crosshead models` lists this library's own"

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
    _check_against_data(model.args, num_classes, in_chans, img_size)
    args = _arguments(model, num_classes, in_chans, from_weights)
    if img_size is not None:
        args.pop("img_size", None)
    options = _interaction_options(model)
    module = _create(model.name, args, img_size)
    first = Weights.read(model.init_from) if model.init_from and from_weights else None
    # Weights of a model that was swapped already have its names, and are loaded after the swap; others before.
    before = first is not None and (model.interaction is None or first.fits(module))
    if first is not None and before:
        first.load(module)
    _swap(module, model, options)
    if first is not None and not before:
        first.load(module)
    return module


def build_backbone(model: ModelSettings, *, in_chans: int = 3, from_weights: bool = True) -> nn.Module:
    """The same without a classifier and for images of any size, as the start of a detector or segmenter.

    ``model.init_from`` may be a classifier's weights: what the backbone has no use for, and what it lacks, is logged.

    Raises:
        ValueError: as ``build_model``, and for a model that takes images of one size only.
    """
    _check_against_data(model.args, 0, in_chans, None)
    options = _interaction_options(model)
    module = _create_for_any_size(model.name, _arguments(model, 0, in_chans, from_weights))
    first = Weights.read(model.init_from) if model.init_from and from_weights else None
    before = first is not None and (model.interaction is None or first.covers(module))
    if first is not None and before:
        _start_backbone(module, first)
    _swap(module, model, options)
    if first is not None and not before:
        _start_backbone(module, first)
    return module


def _start_backbone(module: nn.Module, first: Weights) -> None:
    missing, unused = first.load_backbone(module)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]  # a count, no weight
    for names, what in ((missing, "not in it, and started anew"), (unused, "not used")):
        if names:
            _logger.warning("%s: %d tensors %s: %s", first.file, len(names), what, ", ".join(names))


def _arguments(model: ModelSettings, num_classes: int, in_chans: int, from_weights: bool) -> dict[str, Any]:
    """What timm is called with; ValueError for a name that it doesn't know."""
    if not timm.is_model(model.name):
        raise ValueError(_unknown_model(model.name))
    args = dict(model.args, num_classes=num_classes, in_chans=in_chans)
    if not from_weights:
        for key in ("pretrained", "checkpoint_path"):
            args.pop(key, None)
    if model.drop_path_rate:
        args["drop_path_rate"] = model.drop_path_rate
    if model.overlap is not None and model.interaction is None:
        args["overlap"] = model.overlap
    return args


def _swap(module: nn.Module, model: ModelSettings, options: dict[str, Any]) -> None:
    if model.interaction is not None:
        how = model.interaction
        report = swap_attention(module, how.kind, blocks=how.blocks, init=how.init, **options)
        _logger.info("%s", report)


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
    return tuple(size) if isinstance(size, list | tuple) else (size, size)


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


def _create_for_any_size(name: str, args: dict[str, Any]) -> nn.Module:
    """Swin, a ViT and a convolutional model each want another word for it, or none."""
    for own in ({"strict_img_size": False}, {"dynamic_img_size": True}, {}):
        try:
            module = timm.create_model(name, **(own | args))
            break
        except TypeError as error:
            if not own or f"'{next(iter(own))}'" not in str(error):
                raise ValueError(
                    f"model {name} does not take what the recipe gives it: {error}; see model.args"
                ) from error
    if getattr(getattr(module, "patch_embed", None), "strict_img_size", False):
        raise ValueError(
            f"model {name} takes images of one size only, and the pictures to segment or to find objects in have many; "
            "take another backbone"
        )
    return module


def _unknown_model(name: str) -> str:
    near = get_close_matches(name, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"no model {name!r} in timm's registry; {hint}`crosshead models` lists this library's own"

"""torchvision's classifiers by name, to build one again without anything to fetch."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..libraries import need
from ..swap import apply_interactions, interactions_of

# Before the name of a model of torchvision's, where others have a name of timm's registry.
_PREFIX = "torchvision/"


def is_torchvisions(model: nn.Module) -> bool:
    """Whether ``model`` is of a class of torchvision's, in which no name of its models is kept."""
    return type(model).__module__.startswith("torchvision.models.")


def names_torchvisions(name: str) -> bool:
    """Whether ``name`` is written as one of torchvision's: ``torchvision/vit_b_16``."""
    return name.startswith(_PREFIX)


def described_by(name: str, model: nn.Module) -> dict[str, Any]:
    """The architecture and the arguments from which ``built_by_torchvision`` makes it again, and how its weights'
    pictures are prepared, as ``config.json`` has them."""
    given: dict[str, Any] = {"interactions": interactions_of(model)}
    if layers := [m for m in model.modules() if isinstance(m, nn.Linear)]:  # SqueezeNet's classifier is none
        given["num_classes"] = layers[-1].out_features
    if isinstance(side := getattr(model, "image_size", None), int):
        given["image_size"] = side
    return {
        "architecture": name,
        "num_classes": given.get("num_classes"),
        "model_args": given,
        "pretrained_cfg": _preparation(name) | ({"input_size": [3, side, side]} if side else {}),
    }


def _preparation(name: str) -> dict[str, Any]:
    """How torchvision's own weights of this name want pictures, in timm's words."""
    models = need("torchvision.models")
    _check_name(name)
    wanted: Any = list(models.get_model_weights(name.removeprefix(_PREFIX)))[-1].transforms()
    (crop,), (resize,) = wanted.crop_size, wanted.resize_size
    return {
        "input_size": [3, crop, crop],
        "mean": list(wanted.mean),
        "std": list(wanted.std),
        "crop_pct": crop / resize,
        "interpolation": wanted.interpolation.value,
    }


def is_classifier(name: str) -> bool:
    """Whether torchvision has a classifier of this name, with or without its prefix."""
    models = need("torchvision.models")
    return name.removeprefix(_PREFIX) in models.list_models(module=models)


def _check_name(name: str) -> None:
    if not is_classifier(name):
        raise ValueError(
            f"torchvision has no classifier {name.removeprefix(_PREFIX)!r}; torchvision.models.list_models() has all"
        )


def built_by_torchvision(name: str, args: Mapping[str, Any]) -> nn.Module:
    """The model without weights. Raises ValueError for a name that is none of torchvision's classifiers."""
    _check_name(name)
    given = {key: value for key, value in args.items() if key not in ("interactions", "weights")}
    model: nn.Module = need("torchvision.models").get_model(name.removeprefix(_PREFIX), weights=None, **given)
    apply_interactions(model, args.get("interactions", []))
    model.pretrained_cfg = {"architecture": name}  # type: ignore[assignment]  # where timm's models have theirs
    return model

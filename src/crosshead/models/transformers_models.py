"""Hugging Face's models by name: what is needed to build one again, swapped or not, without anything to fetch."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..swap import apply_interactions, interactions_of

# Before the name of a class of transformers', where others have a name of timm's registry.
_PREFIX = "transformers/"


def is_theirs(model: nn.Module) -> bool:
    """Whether ``model`` is of a class that comes with transformers."""
    cls = type(model)
    return cls.__module__.startswith("transformers.") and hasattr(cls, "save_pretrained")


def described(model: nn.Module) -> dict[str, Any]:
    """The architecture and the arguments from which ``built`` makes it again, as ``config.json`` has them."""
    config: Any = model.config
    arguments = {"config": config.to_dict(), "interactions": interactions_of(model)}
    side, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    sides = [side, side] if isinstance(side, int) else side
    return {
        "architecture": f"{_PREFIX}{type(model).__name__}",
        "num_classes": getattr(config, "num_labels", 0),
        "model_args": arguments,
        "pretrained_cfg": {"input_size": [channels, *sides]} if sides else {},
    }


def is_named(name: str) -> bool:
    return name.startswith(_PREFIX)


def built(name: str, args: Mapping[str, Any]) -> nn.Module:
    """The model without weights. Raises RuntimeError for a name that is no model of the transformers that is there."""
    try:
        import transformers
    except ImportError as error:
        raise RuntimeError(f"{name} is a model of transformers, which is not installed") from error
    cls = getattr(transformers, name.removeprefix(_PREFIX), None)
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel) and cls.config_class):
        raise RuntimeError(
            f"transformers {transformers.__version__} has no model {name.removeprefix(_PREFIX)!r}"
        )
    make: Any = cls._from_config
    model: nn.Module = make(cls.config_class.from_dict(dict(args["config"])))
    apply_interactions(model, args["interactions"])
    return model

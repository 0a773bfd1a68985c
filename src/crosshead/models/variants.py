"""Puts a family of models into timm's registry: each variant once with interacting heads and once plain."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn


@dataclass(frozen=True)
class Variant:
    """One size of a family: what it is, the side of its images in pixels, and the arguments of its class."""

    about: str
    image_size: int
    args: Mapping[str, Any]


def default_cfg(image_size: int, classifier: str, first_conv: str, **more: Any) -> dict[str, Any]:
    """What timm wants to know of a model: its input, and how evaluation crops it. There are no weights to load."""
    return {
        "num_classes": 1000,
        "input_size": (3, image_size, image_size),
        "pool_size": None,
        "crop_pct": 0.875 if image_size == 224 else 1.0,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": first_conv,
        "classifier": classifier,
        "license": "apache-2.0",
        **more,
    }


def register_variants(
    module: str,
    classes: Mapping[str, type[nn.Module]],
    variants: Mapping[str, Variant],
    *,
    cfg: Callable[[int], dict[str, Any]],
    filter_fn: Callable[..., Any] | None = None,
) -> None:
    """Registers ``PREFIX_NAME`` for every prefix in ``classes`` and every name in ``variants``.

    Args:
        module: ``__name__`` of the module that the models belong to; timm groups them by it.
        classes: prefix of the name -> class of the model. The first is the one that the texts describe.
        variants: rest of the name -> variant.
        cfg: timm's configuration for images of a side.
        filter_fn: timm's adapter of checkpoints to the model, where there are others' checkpoints.
    """
    names = {f"{prefix}_{name}": (cls, v) for prefix, cls in classes.items() for name, v in variants.items()}
    sys.modules[module].default_cfgs = generate_default_cfgs(  # type: ignore[attr-defined] # timm looks there
        {name: cfg(variant.image_size) for name, (_, variant) in names.items()}
    )
    for name, (cls, variant) in names.items():
        register_model(_entry(module, name, cls, variant, filter_fn))


def _entry(
    module: str, name: str, cls: type[nn.Module], variant: Variant, filter_fn: Callable[..., Any] | None
) -> Callable[..., nn.Module]:
    """The function that timm calls; it finds its module and name on the function itself."""

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        args = {**variant.args, **kwargs}
        # Every stage of a hierarchical model; of a plain one the last three blocks, as timm does.
        default_indices = tuple(range(len(args["depths"]))) if "depths" in args else 3
        out_indices = args.pop("out_indices", default_indices)
        return build_model_with_cfg(
            cls,
            name,
            pretrained,
            pretrained_filter_fn=filter_fn,
            feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
            **args,
        )

    create.__name__ = create.__qualname__ = name
    create.__module__ = module
    create.__doc__ = variant.about
    return create

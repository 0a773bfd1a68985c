"""Puts a family of models into timm's registry: each variant with interacting heads, and once plain."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from ..swap import SwapReport, swap_attention
from .starting_values import AUTHORS

_TIMMS = {
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "checkpoint_path", "cache_dir",
    "features_only", "out_indices", "scriptable", "exportable", "no_jit", "device", "dtype",
}  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One size of a family: what it is, the side of its images in pixels, and the arguments of its class."""

    about: str
    image_size: int
    args: Mapping[str, Any]


# The heads of the MOHSA paper's models; a model's ``overlap`` changes the schedule.
OVERLAP = {"kind": "overlap", "overlap": "index"}


@dataclass(frozen=True)
class Family:
    """Variants under one prefix: the class that they are built of, and how their heads interact unless told otherwise.

    ``interaction``: a kind and its options (``{"kind": "overlap", "overlap": "index"}``), or None for plain heads.
    ``start_authors``: with ``weight_init="authors"`` gives what the swap brought its starting values.
    """

    model: Callable[..., nn.Module]
    interaction: Mapping[str, Any] | None = None
    start_authors: Callable[[nn.Module, SwapReport], None] | None = None

    def build(self, *, interaction: Mapping[str, Any] | str | bool | None = None, **kwargs: Any) -> nn.Module:
        """The model, its heads interacting before any weights are loaded: with the operator of the paper.

        ``interaction``: a kind and its options, or a kind alone, in place of the family's. True or False is iViT's own
        question, whether the heads of its attention through landmarks exchange their attention.
        """
        if isinstance(interaction, bool):
            kwargs["interaction"], interaction = interaction, None
        if isinstance(interaction, str):
            interaction = {"kind": interaction}
        options = dict(interaction or self.interaction or {})
        if "overlap" in kwargs:
            if not options:
                raise TypeError(
                    "plain heads have no 'overlap'; expected interaction={'kind': 'overlap', 'overlap': ...}"
                )
            options["overlap"] = kwargs.pop("overlap")
        model = self.model(**kwargs)
        if options:
            report = swap_attention(model, options.pop("kind"), init="paper", **options)
            if self.start_authors is not None and kwargs.get("weight_init") == AUTHORS:
                self.start_authors(model, report)
        return model


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
    families: Mapping[str, Family],
    variants: Mapping[str, Variant],
    *,
    cfg: Callable[[int], dict[str, Any]],
    filter_fn: Callable[..., Any] | None = None,
) -> None:
    """Registers ``PREFIX_NAME`` for every prefix in ``families`` and every name in ``variants``.

    Each takes ``interaction`` (kind and options) in place of its family's, and ``overlap`` for that option of it.

    Args:
        module: ``__name__`` of the module that the models belong to; timm groups them by it.
        families: prefix of the name -> family. The first is the one that the texts describe.
        variants: rest of the name -> variant.
        cfg: timm's configuration for images of a side.
        filter_fn: timm's adapter of checkpoints to the model, where there are others' checkpoints.
    """
    names = {f"{prefix}_{name}": (f, v) for prefix, f in families.items() for name, v in variants.items()}
    sys.modules[module].default_cfgs = generate_default_cfgs(  # type: ignore[attr-defined] # timm looks there
        {name: cfg(variant.image_size) for name, (_, variant) in names.items()}
    )
    for name, (family, variant) in names.items():
        register_model(_entry(module, name, family, variant, filter_fn))


def _entry(
    module: str, name: str, family: Family, variant: Variant, filter_fn: Callable[..., Any] | None
) -> Callable[..., nn.Module]:
    """The function that timm calls; it finds its module and name on the function itself."""

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        args = {**variant.args, **kwargs}
        # Every stage of a hierarchical model; of a plain one the last three blocks, as timm does.
        default_indices = tuple(range(len(args["depths"]))) if "depths" in args else 3
        out_indices = args.pop("out_indices", default_indices)
        model = build_model_with_cfg(
            family.build,
            name,
            pretrained,
            pretrained_filter_fn=filter_fn,
            feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
            **args,
        )
        model.created_with = own_arguments(kwargs)  # type: ignore[assignment] # for crosshead.save
        return model

    create.__name__ = create.__qualname__ = name
    create.__module__ = module
    create.__doc__ = variant.about
    return create


def own_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry of the registry was called with, less what is timm's own business: where weights are from, how the
    model is used."""
    return {name: value for name, value in kwargs.items() if name not in _TIMMS and value is not None}

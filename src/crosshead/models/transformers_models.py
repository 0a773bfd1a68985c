"""Hugging Face's models by name, to build one again without anything to fetch; and their ViT's, DeiT's and DINOv2's
names of tensors, turned into timm's."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

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
    of_timm = getattr(getattr(model, "timm_model", None), "patch_embed", None)  # in transformers' wrapper
    side = getattr(config, "image_size", None) or getattr(of_timm, "img_size", None)
    channels = getattr(config, "num_channels", 3)
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


_ANCHOR = "embeddings.patch_embeddings.projection.weight"
_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_HEADS = {"classifier": "head", "cls_classifier": "head", "distillation_classifier": "head_dist"}
_IN_BLOCKS = {
    "attention.output.dense": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "norm1": "norm1",
    "norm2": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
}
_BLOCK = re.compile(r"(?:encoder\.)?layers?\.(\d+)\.(.+)\.(weight|bias|lambda1)")
_QKV = re.compile(r"attention\.attention\.(query|key|value)")


def from_transformers(theirs: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors under timm's names, below the prefix that they had (``vit.``); None where they are no such model's.

    Queries, keys and values become one matrix. What timm's model has no place for (a pooler, the mask token) is left
    out.
    """
    anchor = next((name for name in theirs if name.endswith(_ANCHOR)), None)
    if anchor is None:
        return None
    prefix, found, apart = anchor.removesuffix(_ANCHOR), {}, {}
    for name, tensor in theirs.items():
        head, _, part = name.rpartition(".")
        if head in _HEADS:
            found[f"{prefix}{_HEADS[head]}.{part}"] = tensor
            continue
        inner = name.removeprefix(prefix)
        stem, _, part = inner.rpartition(".")
        if inner in _OUTSIDE:
            found[f"{prefix}{_OUTSIDE[inner]}"] = tensor
        elif stem in _OUTSIDE:
            found[f"{prefix}{_OUTSIDE[stem]}.{part}"] = tensor
        elif block := _BLOCK.fullmatch(inner):
            number, module, part = block.groups()
            if which := _QKV.fullmatch(module):
                apart[number, part, which[1]] = tensor
            elif module in _IN_BLOCKS:
                part = "gamma" if part == "lambda1" else part
                found[f"{prefix}blocks.{number}.{_IN_BLOCKS[module]}.{part}"] = tensor
    for number, part in dict.fromkeys((number, part) for number, part, _ in apart):
        three = [apart.get((number, part, each)) for each in ("query", "key", "value")]
        if all(each is not None for each in three):
            found[f"{prefix}blocks.{number}.attn.qkv.{part}"] = torch.cat([t for t in three if t is not None])
    return _with_registers(found, prefix)


def _with_registers(found: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """timm's models with registers have no position for the class token, which is added to it once."""
    positions, token = found.get(f"{prefix}pos_embed"), found.get(f"{prefix}cls_token")
    if f"{prefix}reg_token" in found and positions is not None and token is not None:
        found[f"{prefix}cls_token"], found[f"{prefix}pos_embed"] = token + positions[:, :1], positions[:, 1:]
    return found

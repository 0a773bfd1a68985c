"""Models without a run of their own: by name with a file of weights, or in the folders that libraries save them to."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosshead.files import read_json

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

_CONFIG, _PREPARATION = "config.json", "preprocessor_config.json"


@dataclass(frozen=True)
class NamedModel:
    """A model, how a picture (RGB) becomes its input, what it is, and its classes' names where they are known."""

    model: "nn.Module"
    prepare: "Callable[[Image], Tensor]"
    mean: Sequence[float]
    std: Sequence[float]
    about: str
    classes: Sequence[str] | None = None


def in_folder(folder: Path) -> Callable[[], NamedModel] | None:
    """What opens the model that a folder holds, as ``crosshead.save``, timm or transformers left it; or None."""
    if not (folder / _CONFIG).is_file():
        return None
    config = read_json(folder / _CONFIG)
    if "model_args" in config and "architecture" in config and "format" in config:
        return lambda: _saved(folder)
    if "architecture" in config:
        return lambda: _of_timms_hub(folder)
    if "model_type" in config:
        return lambda: _of_transformers(folder, config)
    raise ValueError(
        f"{folder / _CONFIG} names no model; expected a folder of crosshead.save, of timm's save_for_hf or of "
        "transformers' save_pretrained"
    )


def by_name(word: str, args: argparse.Namespace) -> NamedModel:
    """A model of timm's or torchvision's with ``--weights``.

    Raises:
        ValueError: neither has it, there are no weights, or they are another model's.
    """
    import timm

    from crosshead.models import load_weights
    from crosshead.models.torchvision_models import built_by_torchvision, is_classifier

    of_timm = timm.is_model(word)
    if not of_timm and not is_classifier(word):
        raise ValueError(
            f"{word} is neither the folder of a run or of a saved model nor a model of timm's or torchvision's"
        )
    if args.weights is None:
        raise ValueError(f"{word} has no weights here; pass --weights FILE, or name the folder of a run")
    if of_timm:
        model = timm.create_model(word, pretrained=False)
        load_weights(model, args.weights, new_classifier=False)
        return _prepared_by_timm(model, "timm's, with weights of a file")
    from torchvision.models import get_model_weights

    model = built_by_torchvision(word, {})
    load_weights(model, args.weights, new_classifier=False)
    # Of its weights, which are not fetched: how pictures are prepared, and what the classes are called.
    known: Any = list(get_model_weights(word.removeprefix("torchvision/")))[-1]
    transform = known.transforms()
    classes = known.meta["categories"]
    return NamedModel(
        model, transform, transform.mean, transform.std, "torchvision's, with weights of a file", classes
    )


def _saved(folder: Path) -> NamedModel:
    from crosshead.models.saved import load_saved

    model = load_saved(folder)
    cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    about = f"saved from {cfg.get('architecture') or type(model).__name__}"
    if (folder / _PREPARATION).is_file():
        return _prepared_by_transformers(model, folder, about, cfg.get("label_names"))
    if not cfg.get("mean") or not cfg.get("std"):
        raise ValueError(
            f"{folder} does not say how pictures are prepared; save the model with "
            f"crosshead.save(..., preparation={{'mean': ..., 'std': ...}}), or put transformers' {_PREPARATION} there"
        )
    return _prepared_by_timm(model, about, cfg.get("label_names"))


def _of_timms_hub(folder: Path) -> NamedModel:
    import timm

    import crosshead.models  # swapped ones are an architecture there  # noqa: F401

    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except (RuntimeError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{folder}: timm can't build what is in it: {error}") from error
    cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    return _prepared_by_timm(model, "in timm's format", cfg.get("label_names"))


def _of_transformers(folder: Path, config: dict[str, Any]) -> NamedModel:
    """Of ``save_pretrained``: the class that the folder names, of transformers alone, and its safetensors."""
    from safetensors import SafetensorError

    transformers = _quietly()
    name = (config.get("architectures") or ["none"])[0]
    cls: Any = getattr(transformers, name, None)
    known = isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)
    if not known:
        raise ValueError(
            f"transformers {transformers.__version__} has no model {name!r}, which {folder} names"
        )
    if not (folder / _PREPARATION).is_file():
        raise ValueError(
            f"{folder} does not say how pictures are prepared; save transformers' image processor there too: "
            f"processor.save_pretrained({str(folder)!r})"
        )
    try:
        model: Any = cls.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{folder}: transformers can't load what is in it: {str(error).splitlines()[0]}"
        ) from error
    if model.main_input_name != "pixel_values":  # of text and pictures: the tower of pictures
        model = getattr(model, "vision_model", model)
    labels = getattr(model.config, "id2label", None) or {}
    named = "Classification" in name and not all(str(each).startswith("LABEL_") for each in labels.values())
    classes = [labels[i] for i in sorted(labels)] if named else None
    return _prepared_by_transformers(model, folder, f"transformers' {type(model).__name__}", classes)


def _quietly() -> Any:
    """transformers, of which nothing but its errors is heard: a command says what it has to say in a line."""
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            "this is a model of transformers, which is not installed: pip install transformers"
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _prepared_by_transformers(
    model: "nn.Module", folder: Path, about: str, classes: Sequence[str] | None
) -> NamedModel:
    transformers = _quietly()
    kind = read_json(folder / _PREPARATION).get("image_processor_type", "none")
    cls: Any = getattr(transformers, kind, None)  # not by config.json, which may be ours
    known = isinstance(cls, type) and issubclass(cls, transformers.ImageProcessingMixin)
    if not known:
        raise ValueError(
            f"transformers {transformers.__version__} has no image processor {kind!r}, which {folder} names"
        )
    try:
        processor: Any = cls.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(f"{folder / _PREPARATION}: {str(error).splitlines()[0]}") from error

    def prepare(picture: "Image") -> "Tensor":
        found: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        if found.dim() != 3:
            raise ValueError(
                f"{folder} prepares a picture as {tuple(found.shape)}; expected (C, H, W), pictures on a grid"
            )
        return found

    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    if mean is None or std is None or not getattr(processor, "do_normalize", True):
        mean, std = 3 * [0.0], 3 * [1.0]
    return NamedModel(model, prepare, mean, std, about, classes)


def _prepared_by_timm(model: "nn.Module", about: str, classes: Sequence[str] | None = None) -> NamedModel:
    from timm.data import create_transform, resolve_model_data_config

    config = resolve_model_data_config(model)
    transform: Any = create_transform(**config, is_training=False)
    return NamedModel(model, transform, config["mean"], config["std"], about, classes)

"""Other people's libraries: which extra brings one that is missing, and a torch and a torchvision that don't fit.

torch and torchvision are built for one another, and fail in many words where pip has taken two that are not.
"""

import importlib
import re
from types import ModuleType

__all__ = ["extra_of", "mismatch", "need"]

_EXTRAS = {
    "wandb": "wandb",
    "mlflow": "mlflow",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "huggingface_hub": "hub",
    "segmentation_models_pytorch": "dense",
    "faster_coco_eval": "dense",
}
# Operators that torchvision registers with a torch of another build, symbols that are not there, and its own words.
_SIGNS = re.compile(
    r"operator torchvision::|undefined symbol|torchvision.*compiled with different", re.DOTALL
)


def extra_of(module: str) -> str:
    """The extra of this package that brings ``module``; all that is not named above comes with training."""
    return _EXTRAS.get(module.partition(".")[0], "train")


def need(module: str) -> ModuleType:
    """The module, imported. ModuleNotFoundError that says what to install where its library is missing."""
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise ModuleNotFoundError(
            f"{library.replace('_', '-')} is not installed; pip install 'crosshead[{extra_of(library)}]' brings it",
            name=library,
        ) from None


def mismatch(error: BaseException) -> str | None:
    """One sentence where ``error`` comes of a torchvision that is of another torch; None for any other error."""
    if not isinstance(error, RuntimeError | ImportError | OSError) or not _SIGNS.search(str(error)):
        return None
    return (
        f"torch {_version('torch')} and torchvision {_version('torchvision')} were not built for one another; "
        "install both from one place: pip install uv; uv pip install --reinstall torch torchvision"
    )


def _version(package: str) -> str:
    from importlib.metadata import (
        PackageNotFoundError,
        version,
    )  # here: it takes a tenth of a command's start

    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed as a package)"

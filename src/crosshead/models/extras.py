"""Libraries that only dense models need; the package itself imports without them."""

import importlib
from types import ModuleType

_BROUGHT_BY = {"torchvision": "train", "segmentation_models_pytorch": "dense", "faster_coco_eval": "dense"}


def need(module: str) -> ModuleType:
    """The module, imported. ImportError that says what to install where its library is missing."""
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise ImportError(
            f"{library} is not installed; pip install 'crosshead[{_BROUGHT_BY[library]}]' brings it",
            name=library,
        ) from None

"""faster-coco-eval, which reads polygons and judges detections; asked for when it is needed."""

from types import ModuleType


def coco_library() -> ModuleType:
    """The package. ImportError that says what to install where it is missing."""
    try:
        import faster_coco_eval
    except ModuleNotFoundError as error:
        if error.name != "faster_coco_eval":
            raise
        raise ImportError(
            "faster-coco-eval is not installed; pip install 'crosshead[dense]' brings it", name=error.name
        ) from None
    return faster_coco_eval

"""What is measured of one model's heads at the command line, as plain data."""

import argparse
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from crosshead.cli.inspect.images import open_images
from crosshead.cli.inspect.inspected import open_inspected

if TYPE_CHECKING:
    from torch import Tensor, nn


def measure_run(word: str, args: argparse.Namespace) -> dict[str, Any]:
    """Everything that is asked of one model, as plain data."""
    from crosshead.heads import ablate_heads, measure_heads

    inspected = open_inspected(word, args)
    images = open_images(inspected, args)
    if args.ablate and (
        inspected.trained is None or args.pictures or inspected.trained.recipe.task.name != "classify"
    ):
        raise ValueError(
            "--ablate needs images and their classes: name a run that classifies, without --pictures"
        )
    layers = measure_heads(inspected.model, images.batches(masks=args.masks), queries=args.queries)
    found: dict[str, Any] = {
        "model": inspected.name,
        "images": {"split": images.split, "count": images.count},
        "layers": [asdict(layer) for layer in layers],
    }
    if args.ablate:
        found["ablation"] = [asdict(each) for each in ablate_heads(inspected.model, images.labelled, _loss)]
    return found


def _loss(model: "nn.Module", images: "Tensor", targets: "Tensor") -> "Tensor":
    import torch.nn.functional as F

    return F.cross_entropy(model(images).float(), targets, reduction="none")


def finite(values: Any) -> Any:
    """The same with None for what is no number, as JSON wants it."""
    if isinstance(values, dict):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values

"""``crosshead train --throughput``: images a second of a recipe's model, forward only, as the authors measure it."""

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from crosshead.recipe import Recipe

_WARM_UP, _REPEATS, _LONGEST_S = 5, 30, 60.0
_CLASSES = 1000  # the classifier is a thousandth of the work, so its size needs no data set


def print_throughput(recipe: "Recipe") -> int:
    """Times forward passes of one batch of random images after a warm-up; prints median and spread."""
    import torch

    from crosshead.data.transforms.pipeline import image_size
    from crosshead.models import build_model
    from crosshead.train.loop.build import place
    from crosshead.train.loop.devices import autocast, choose_device
    from crosshead.train.resolve import resolve
    from crosshead.train.tools.profile import synchronise

    recipe = resolve(recipe)
    device = choose_device(recipe.train.device)
    data = recipe.data
    size = image_size(data)
    classes = recipe.model.args.get("num_classes", _CLASSES)
    model = build_model(
        recipe.model, num_classes=classes, in_chans=data.channels, img_size=size, from_weights=False
    ).eval()
    place(model, recipe.train, device)
    if recipe.train.compile:
        model.compile()
    images = torch.randn(data.batch_size, data.channels, *size, device=device)
    if recipe.train.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    seconds: list[float] = []
    begin = time.perf_counter()
    with torch.inference_mode(), autocast(recipe.train.precision, device):
        for repeat in range(_WARM_UP + _REPEATS):
            start = time.perf_counter()
            model(images)
            synchronise(device)
            if repeat >= _WARM_UP:
                seconds.append(time.perf_counter() - start)
            if seconds and time.perf_counter() - begin > _LONGEST_S:
                break
    rates = [data.batch_size / duration for duration in seconds]
    print(
        f"{recipe.model.name}: {statistics.median(rates):,.1f} images/s forward, median of {len(rates)} "
        f"({min(rates):,.1f} to {max(rates):,.1f}); batch {data.batch_size}, {size[0]} x {size[1]} pixels, "
        f"{recipe.train.precision}, {_describe(device)}, torch {torch.__version__}"
    )
    return 0


def _describe(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} with {torch.get_num_threads()} threads" if device.type == "cpu" else device.type

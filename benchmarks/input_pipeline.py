"""The input pipeline at 224 pixels with the whole augmentation of the ImageNet recipes, and who waits for it.

    python benchmarks/input_pipeline.py

JPEGs of ImageNet's usual size are read through the real training loader: alone in one process, with the time of every
stage; in one worker process; and beside training steps of ViT-Tiny, which share the machine with one worker.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from torch import nn
from torch.nn import functional as nnf

from crosshead.data.base import ImageSet, Splits
from crosshead.data.batching.labelled import TrainingBatches
from crosshead.data.batching.loader import Loader, training_loader
from crosshead.data.datasets.registry import open_splits
from crosshead.data.random import Indices
from crosshead.recipe import load_recipe
from crosshead.recipe.schema import Recipe
from crosshead.tasks import open_task
from crosshead.train.loop.devices import tune_allocator
from crosshead.train.loop.optim import build_optimizer
from interleave import RESULTS, conditions

RECIPE = "vit_tiny_16_224_imagenet"
SIZES = ((375, 500), (375, 500), (375, 500), (500, 375))  # height, width: one in four stands upright
QUALITY = 90
DIFFERENT = 112  # pictures that are drawn; more are copies of these
CHECKED = 4  # batches
WARM_UP_STEPS = 3  # as many batches are made beside the first step as the loader keeps ready

# The steps of the training transform by what they do; the rest of the time is the loader's own.
STAGES = {
    "_to_rgb": "decode",
    "grow": "crop and resize",
    "RandomResizedCrop": "crop and resize",
    "RandomHorizontalFlip": "flip",
    "RandAugment": "RandAugment",
    "normalise": "to tensor, normalise",
    "RandomErasing": "erasing",
}


def picture(number: int) -> Image.Image:
    """Noise of every scale, coarse strong and fine weak as in photographs, over a gradient of colours."""
    height, width = SIZES[number % len(SIZES)]
    generator = torch.Generator().manual_seed(number)
    slopes = torch.randn(2, 3, 1, 1, generator=generator) * 40
    pixels = (
        128 + slopes[0] * torch.linspace(-1, 1, width) + slopes[1] * torch.linspace(-1, 1, height)[:, None]
    )
    for octave in range(1, 9):
        noise = torch.randn(
            1, 3, *(max(2, side >> (8 - octave)) for side in (height, width)), generator=generator
        )
        pixels += nnf.interpolate(noise, (height, width), mode="bicubic")[0] * 40 * 0.86**octave
    return Image.fromarray(pixels.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy())


@cache
def encoded(number: int) -> bytes:
    out = BytesIO()
    picture(number).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def write_pictures(root: Path, count: int, classes: int = 8) -> float:
    """ImageNet's class folders with ``count`` training pictures; their mean size in kB."""
    sizes = []
    for number in range(count + classes):
        part = "train" if number < count else "val"
        file = root / part / f"n{number % classes:08d}" / f"{number}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        sizes.append(file.write_bytes(encoded(number % DIFFERENT)))
    return statistics.mean(sizes) / 1e3


def loader(recipe: Recipe, splits: Splits, epoch: int, workers: int) -> Loader:
    data = recipe.data.model_copy(update={"num_workers": workers})
    seed = recipe.train.seed
    return training_loader(
        TrainingBatches(splits.train, data, recipe.augment, splits.info, seed=seed, epoch=epoch)
    )


class Stopwatches:
    """Seconds by stage, over everything that was wrapped."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def around(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            with self.timing(stage):
                return work(*args, **options)

        return timed

    def watch(self, batches: TrainingBatches) -> None:
        """Put a stopwatch around everything that ``batches`` does to a picture."""
        batches.images = Timed(batches.images, self)
        steps = batches.transform.transforms  # type: ignore[attr-defined]
        batches.transform.transforms = [  # type: ignore[attr-defined]
            self.around(STAGES[name_of(step)], step) for step in steps
        ]
        batches.mixing = self.around("mixup and CutMix", batches.mixing)  # type: ignore[assignment]


class Timed:
    """An image set whose decoding is timed."""

    def __init__(self, images: ImageSet, watches: Stopwatches) -> None:
        self.images, self.targets, self.name = images, images.targets, images.name
        self.load = watches.around("decode", images.load)

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Indices) -> ImageSet:
        return self.images.subset(indices)


def name_of(step: Any) -> str:
    step = getattr(step, "func", step)  # of a partial
    return getattr(step, "__name__", type(step).__name__)


def check(recipe: Recipe, splits: Splits) -> None:
    """A few batches, the same in a worker process and under the stopwatches as without either."""
    watched = loader(recipe, splits, 0, workers=0)
    assert isinstance(watched.batches, TrainingBatches)
    Stopwatches().watch(watched.batches)
    alone = list(islice(loader(recipe, splits, 0, workers=0), CHECKED))
    for what, other in (("a worker", loader(recipe, splits, 0, workers=1)), ("stopwatches", watched)):
        for one, two in zip(alone, islice(other, CHECKED), strict=True):
            if not (torch.equal(one.images, two.images) and torch.equal(one.targets, two.targets)):
                raise SystemExit(f"batches with {what} differ from those without; not reported")


def stages(recipe: Recipe, splits: Splits, epochs: int) -> dict[str, float]:
    """Milliseconds a picture by stage, the median over ``epochs``; "whole" is their sum and the loader's own."""
    found: dict[str, list[float]] = {}
    for epoch in range(1, 1 + epochs):
        watches, source = Stopwatches(), loader(recipe, splits, epoch, workers=0)
        assert isinstance(source.batches, TrainingBatches)
        watches.watch(source.batches)
        with watches.timing("whole"):
            count = sum(map(len, source))
        whole = watches.seconds.pop("whole")
        own = {"seeds, stacking and the like": whole - sum(watches.seconds.values()), "whole": whole}
        for stage, seconds in (watches.seconds | own).items():
            found.setdefault(stage, []).append(1e3 * seconds / count)
    return {stage: statistics.median(times) for stage, times in found.items()}


def rates(recipe: Recipe, splits: Splits, epochs: int, workers: int) -> list[float]:
    """Images a second of whole epochs, without stopwatches; the start of a worker process counts."""
    found = []
    for epoch in range(1, 1 + epochs):
        started = time.perf_counter()
        count = sum(map(len, loader(recipe, splits, epoch, workers)))
        found.append(count / (time.perf_counter() - started))
    return sorted(found)


def waiting(recipe: Recipe, splits: Splits, steps: int, threads: int) -> dict[str, float]:
    """Training steps beside one worker process: how long one takes, and how long it waits for its batch before."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    task = open_task(recipe, splits.info)
    model = task.build_model().train()
    optimizer = build_optimizer(model, recipe.optimizer, recipe.data.batch_size)
    waits, works = [], []
    source = iter(loader(recipe, splits, 0, workers=1))
    for _ in range(WARM_UP_STEPS + steps):  # within one epoch: ImageNet's is forty thousand such steps long
        begun = time.perf_counter()
        batch = next(source)
        came = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        (task.step(model, batch).losses["loss"] / len(batch)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_grad or float("inf"))
        optimizer.step()
        waits.append(came - begun)
        works.append(time.perf_counter() - came)
    waits, works = waits[WARM_UP_STEPS:], works[WARM_UP_STEPS:]
    return {
        "steps": steps,
        "training_threads": threads,
        "step_ms": 1e3 * statistics.median(works),
        "images_per_second": steps * recipe.data.batch_size / (sum(works) + sum(waits)),
        "waiting_share": sum(waits) / (sum(works) + sum(waits)),
        "longest_wait_ms": 1e3 * max(waits),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=448)
    parser.add_argument("--epochs", type=int, default=2, help="read by the loader alone, for each figure")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1], help="of the training, one figure each"
    )
    args = parser.parse_args()
    allocator = tune_allocator()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        kilobytes = write_pictures(Path(folder), args.pictures)
        words = [f"data.root={folder}", f"data.batch_size={args.batch}", "train.precision=fp32"]
        recipe = load_recipe(RECIPE, words)
        splits = open_splits(recipe)
        if (batches := len(loader(recipe, splits, 0, 0))) < args.steps + WARM_UP_STEPS:
            raise SystemExit(f"{batches} batches are too few for {args.steps} steps; raise --pictures")
        check(recipe, splits)
        header = conditions(allocator) | {
            "pillow": Image.__version__,
            "libjpeg_turbo": str(features.version_feature("libjpeg_turbo")),
            "numpy": np.__version__,
            "recipe": RECIPE,
            "pictures": f"{args.pictures} JPEGs of 500 x 375, quality {QUALITY}, {kilobytes:.0f} kB",
            "batch": args.batch,
        }
        parts = stages(recipe, splits, args.epochs)
        alone, worker = (rates(recipe, splits, args.epochs, workers) for workers in (0, 1))
        training = [waiting(recipe, splits, args.steps, threads) for threads in args.threads]
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    print(f"loader alone, in this process: {spread(alone)}; in one worker process: {spread(worker)}")
    for stage, milliseconds in parts.items():
        print(f"  {stage:30s} {milliseconds:7.3f} ms a picture {milliseconds / parts['whole']:7.1%}")
    for one in training:
        print("training step of ViT-Tiny, float32, beside one worker process")
        for key, value in one.items():
            print(f"  {key:30s} {value:.4g}")
    content = {
        "conditions": header,
        "stages_ms_a_picture": parts,
        "images_per_second": {"this process": alone, "one worker process": worker},
        "training": training,
    }
    path = RESULTS / "input_pipeline_cpu.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} images/s [{values[0]:.1f}, {values[-1]:.1f}]"


if __name__ == "__main__":
    main()

"""A training step of Mask R-CNN on iViT against torchvision's reference loop, and the input pipeline at 800 x 1333.

    python benchmarks/detection_step.py                  both, into benchmarks/results/detection_{step,input}_cpu.json
    python benchmarks/detection_step.py --only step      one of them (step, input)

Step: the recipe ``scenes_mask_rcnn`` as it stands, in the engine's own loop with its loader, its checks and its logs on
disk; against a loop as torchvision's detection references have it: a ``DataLoader`` of pictures through transforms v2,
the same model, batch, clipping, optimizer and learning rate, the loss looked at before the backward pass. Both make
their scenes on the fly, in the process that trains.

Input: JPEGs of COCO's size with seven objects each, their masks as run lengths; pictures a second of one core, and the
time of every stage; against the same work by transforms v2 alone.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from crosshead.data.base import DatasetInfo
from crosshead.data.batching.dense_batches import TrainingObjects, padded
from crosshead.data.batching.loader import training_loader
from crosshead.data.coco.instances import Objects
from crosshead.data.coco.rle import encode
from crosshead.data.datasets.dense import ObjectDataset
from crosshead.data.datasets.registry import open_splits
from crosshead.data.random import Indices
from crosshead.data.transforms import objects as transforms
from crosshead.data.transforms.object_window import boxes_of
from crosshead.recipe import load_recipe
from crosshead.recipe.schema import Recipe
from crosshead.tasks import open_task
from crosshead.train.checkpoint.saver import Saver
from crosshead.train.checkpoint.state import TrainState
from crosshead.train.checkpoint.store import CheckpointStore
from crosshead.train.distributed.groups import World
from crosshead.train.distributed.watchdog import Watchdog
from crosshead.train.events import RunInfo
from crosshead.train.logging.callbacks import CallbackList
from crosshead.train.logging.log_files import JsonLines
from crosshead.train.loop.build import Training
from crosshead.train.loop.devices import tune_allocator
from crosshead.train.loop.lengths import TrainingLength
from crosshead.train.loop.loaders import DataLoaders, EvalSplit
from crosshead.train.loop.optim import build_optimizer, build_schedule
from crosshead.train.loop.signals import StopRequest
from crosshead.train.loop.trainer import Trainer
from input_pipeline import QUALITY, Stopwatches, picture
from interleave import RESULTS, compare, conditions, report, require_close

STEPS, TURNS = 3, 15
SHORT, LONGEST, OBJECTS, PICTURES = 800, 1333, 7, 16


class Side:
    """The recipe's data, model and optimizer; both sides begin alike."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.splits = open_splits(recipe)
        self.task = open_task(recipe, self.splits.info)
        torch.manual_seed(0)
        self.model = self.task.build_model().train()
        self.optimizer = build_optimizer(self.model, recipe.optimizer, recipe.data.batch_size)
        self.set_rate = build_schedule(
            self.optimizer, recipe.schedule, total_steps=100_000, steps_per_epoch=STEPS, scale=1.0
        )

    def images(self) -> ObjectDataset:
        """As many as a turn takes."""
        count = STEPS * self.recipe.data.batch_size
        return self.splits.train.subset(np.arange(count))  # type: ignore[return-value]


class Pictures(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Pictures and targets as torchvision's references prepare them: tv_tensors through transforms v2."""

    def __init__(
        self, images: ObjectDataset, info: DatasetInfo, *, resize: v2.Transform | None, flip: float
    ) -> None:
        self.images = images
        steps = [] if resize is None else [resize]
        scaled = [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)]
        self.transform = v2.Compose(
            [
                *steps,
                v2.RandomHorizontalFlip(flip),
                v2.SanitizeBoundingBoxes(),
                *scaled,
                v2.Normalize(info.mean, info.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, objects = self.images.sample(i)
        wanted = ~objects.crowd
        target = {
            "boxes": tv_tensors.BoundingBoxes(objects.boxes[wanted], format="XYXY", canvas_size=objects.size),  # type: ignore[call-overload]
            "labels": torch.from_numpy(objects.labels[wanted]),
            "masks": tv_tensors.Mask(objects.whole_masks()[wanted].astype(np.uint8)),
        }
        return self.transform(tv_tensors.Image(F.pil_to_tensor(image)), target)


class Reference(Side):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        flip = recipe.augment.horizontal_flip
        pictures = Pictures(self.images(), self.splits.info, resize=None, flip=flip)
        size = recipe.data.batch_size
        self.loader = DataLoader(
            pictures,
            size,
            shuffle=True,
            drop_last=True,
            collate_fn=lambda batch: tuple(zip(*batch, strict=True)),
        )
        self.step = 0

    def turn(self) -> None:
        for images, targets in self.loader:
            self.set_rate(self.step)
            sizes = [(image.shape[-2], image.shape[-1]) for image in images]
            losses: dict[str, Tensor] = self.model(padded(images, 3), sizes, list(targets))
            loss = torch.stack([*losses.values()]).sum()
            if not math.isfinite(loss.item()):
                raise SystemExit(f"the loss of the reference is {loss.item()}; not reported")
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip_grad or math.inf)
            self.optimizer.step()
            self.step += 1


class Engine(Side):
    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe)
        images = self.images()
        lengths = TrainingLength(recipe.data.batch_size, len(images), 100_000)
        self.state = TrainState(self.model, self.optimizer, None, None)
        callbacks = CallbackList([JsonLines(folder, recipe.log.every_steps)])
        info = RunInfo(folder, "", "", "", "cpu", "fp32", 1, 0, 0.0, 0, 0, 0, 1, 1, 1, 0, "mask_ap", ())
        callbacks.on_start(info)
        world = World()
        loaders = DataLoaders(
            lambda epoch, start: self.batches(images, epoch), EvalSplit(lambda: [], 0), None
        )
        saver = Saver(CheckpointStore(folder), recipe.checkpoint, {}, active=True)
        training = Training(
            recipe, self.task, lengths, self.state, self.model, self.set_rate, world, Watchdog(world, 600)
        )
        # The stop request is not entered: a signal ends the benchmark.
        self.trainer = Trainer(training, loaders=loaders, saver=saver, callback=callbacks, stop=StopRequest())

    def batches(self, images: ObjectDataset, epoch: int) -> Any:
        return training_loader(self.task.training_batches(images, seed=0, epoch=epoch))

    def turn(self) -> None:
        self.state.progress.samples = 0
        self.trainer.train_epoch()
        self.state.progress.epoch += 1


def check_step(ours: Engine, reference: Reference) -> None:
    """Both sides make the same of a picture, and the same loss of a batch with the same random numbers."""
    (batch,) = islice(iter(ours.batches(ours.images(), 0)), 1)
    pictures = Pictures(reference.images(), reference.splits.info, resize=None, flip=0.0)
    names = [reference.images().name(i) for i in range(len(pictures))]
    for image, target, name in zip(batch.images, batch.targets, batch.names, strict=True):
        other, theirs = pictures[names.index(name)]
        require_close(image[:, : other.shape[-2], : other.shape[-1]], other, 1e-5, f"{name}: pixels")
        for key in ("boxes", "labels", "masks"):
            if target[key].shape != theirs[key].shape or not torch.equal(
                target[key], theirs[key].to(target[key].dtype)
            ):
                raise SystemExit(f"{name}: {key} differ from the reference's; not reported")
    found = []
    for side in (ours, reference):
        torch.manual_seed(7)
        sizes = [tuple(target["size"].tolist()) for target in batch.targets]
        if side is ours:
            found.append(torch.stack([*side.task.step(side.model, batch).losses.values()]).sum() / len(batch))
        else:
            found.append(torch.stack([*side.model(batch.images, sizes, batch.targets).values()]).sum())
    require_close(found[0], found[1], 1e-5, "loss of a batch")


def step(threads: int) -> None:
    torch.set_num_threads(threads)
    words = ["train.device=cpu", "log.tensorboard=false", "augment.horizontal_flip=0.0"]
    recipe = load_recipe("scenes_mask_rcnn", words)
    with tempfile.TemporaryDirectory() as folder:
        ours, reference = Engine(recipe, Path(folder)), Reference(recipe)
        check_step(ours, reference)
        timings = compare({"reference loop": reference.turn, "engine": ours.turn}, TURNS, warmup=2)
    header = conditions(tune_allocator()) | {
        "dtype": "float32",
        "batch": recipe.data.batch_size,
        "steps": STEPS,
    }
    report(RESULTS / "detection_step_cpu.json", header, {f"scenes_mask_rcnn, {STEPS} steps": timings})


class Photographs:
    """JPEGs of 480 x 640 pixels in memory, one in four upright, with objects of every size."""

    counted, masked = "objects", True

    def __init__(self, watches: Stopwatches, chosen: list[int] | None = None) -> None:
        self.chosen = list(range(PICTURES)) if chosen is None else chosen
        self.encoded, self.objects = [], []
        self.watches = watches
        for number in self.chosen:
            image = picture(number)
            image = image.resize((480, 640) if image.height > image.width else (640, 480))
            out = BytesIO()
            image.save(out, "JPEG", quality=QUALITY)
            self.encoded.append(out.getvalue())
            self.objects.append(_objects(number, (image.height, image.width)))
        self.targets = [self.name(i) for i in range(len(self))]

    def __len__(self) -> int:
        return len(self.chosen)

    def load(self, i: int) -> Image.Image:
        with self.watches.timing("decode the JPEG"):
            image = Image.open(BytesIO(self.encoded[i]))
            image.load()
            return image

    def sample(self, i: int) -> tuple[Image.Image, Objects]:
        return self.load(i), self.objects[i]

    def picture_id(self, i: int) -> int:
        return i + 1

    def name(self, i: int) -> str:
        return f"photograph {self.chosen[i]}"

    def subset(self, indices: Indices) -> "Photographs":
        return Photographs(self.watches, [self.chosen[i] for i in indices])


def _objects(number: int, size: tuple[int, int]) -> Objects:
    """Seven star-shaped outlines, from 20 to 300 pixels across as in COCO: most of them small."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[: size[0], : size[1]]
    masks = []
    while len(masks) < OBJECTS:
        radius = 10 * 15 ** rng.random()
        y, x = rng.random(2) * size
        angle = np.arctan2(rows - y, columns - x)
        edge = radius * (1 + 0.3 * np.sin(rng.integers(2, 7) * angle + rng.random() * 6))
        mask = np.hypot(rows - y, columns - x) < edge
        if mask.sum() > 100:
            masks.append(mask)
    boxes = boxes_of(torch.from_numpy(np.stack(masks)))
    areas = np.array([mask.sum() for mask in masks], dtype=np.float64)
    crowd = np.zeros(OBJECTS, bool)
    return Objects(
        size, boxes.numpy(), rng.integers(0, 80, OBJECTS), crowd, areas, [encode(mask) for mask in masks]
    )


def input_pipeline(rounds: int) -> None:
    torch.set_num_threads(1)
    watches = Stopwatches()
    images = Photographs(watches)
    recipe = load_recipe(
        "scenes_mask_rcnn", [f"data.eval_resize={SHORT}", f"data.longest={LONGEST}", "augment.horizontal_flip=0.5",
                             "data.interpolation=bilinear", "data.batch_size=2"])  # fmt: skip
    info = DatasetInfo(
        "photographs", tuple(map(str, range(80))), 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )

    def ours() -> Iterator[Any]:
        return iter(
            training_loader(TrainingObjects(images, recipe.data, recipe.augment, info, seed=0, epoch=0))
        )

    resize = v2.RandomShortestSize(SHORT, LONGEST)
    theirs = Pictures(images, info, resize=resize, flip=0.5)
    check_input(recipe, info, images)
    seconds: dict[str, list[float]] = {"engine": [], "transforms v2": []}
    stages: list[dict[str, float]] = []
    watch(watches)
    for _ in range(rounds):
        watches.seconds.clear()
        start = time.perf_counter()
        for _ in ours():
            pass
        seconds["engine"].append(time.perf_counter() - start)
        stages.append({**watches.seconds, "all": seconds["engine"][-1]})
        start = time.perf_counter()
        for i in range(len(theirs)):
            theirs[i]
        seconds["transforms v2"].append(time.perf_counter() - start)
    header = conditions("as PyTorch comes") | {
        "Pillow": Image.__version__,
        "libjpeg-turbo": str(features.check_feature("libjpeg_turbo")),
    }
    rate = {name: round(PICTURES / statistics.median(times), 2) for name, times in seconds.items()}
    medians = {name: statistics.median(each[name] for each in stages) for name in stages[0]}
    told = sum(value for name, value in medians.items() if name != "all")
    medians["the rest: copies, padding, the loader"] = medians.pop("all") - told
    shares = {name: round(value / PICTURES * 1e3, 2) for name, value in medians.items()}
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    print("pictures a second, one core:", rate)
    for name, milliseconds in shares.items():
        print(f"  {name:42s} {milliseconds:7.2f} ms a picture")
    content = {
        "conditions": header,
        "pictures_per_second": rate,
        "ms_per_picture": shares,
        "objects": OBJECTS,
    }
    (RESULTS / "detection_input_cpu.json").write_text(json.dumps(content, indent=1) + "\n")


def watch(watches: Stopwatches) -> None:
    """Stopwatches around what a picture goes through."""
    transforms.Window.picture = watches.around("resize", transforms.Window.picture)  # type: ignore[method-assign]
    transforms.Window.masks = watches.around("decode and resize masks", transforms.Window.masks)  # type: ignore[method-assign]
    transforms.normalise = watches.around("to float, normalise", transforms.normalise)
    compose = v2.Compose.forward

    def timed(self: v2.Compose, *inputs: Any) -> Any:
        if not isinstance(self.transforms[-1], v2.Identity):  # the reference's own
            return compose(self, *inputs)
        with watches.timing("flip"):
            return compose(self, *inputs)

    v2.Compose.forward = timed  # type: ignore[method-assign]


def check_input(recipe: Recipe, info: DatasetInfo, images: Photographs) -> None:
    """What comes out has the size of transforms v2's and boxes within a hundredth of a pixel of theirs, unflipped."""
    augment = recipe.augment.model_copy(update={"horizontal_flip": 0.0})
    ours = transforms.ObjectAugmentation(recipe.data, augment, info)
    theirs = Pictures(images, info, resize=v2.RandomShortestSize(SHORT, LONGEST), flip=0.0)  # type: ignore[arg-type]
    for i in range(4):
        image, target = ours(*images.sample(i))
        other, wanted = theirs[i]
        if any(abs(a - b) > 1 for a, b in zip(image.shape, other.shape, strict=True)):
            raise SystemExit(f"sizes {tuple(image.shape)} and {tuple(other.shape)}; not reported")
        require_close(target["boxes"], wanted["boxes"], 2e-3, "boxes")
        high, wide = (min(a, b) for a, b in zip(image.shape[1:], other.shape[1:], strict=True))
        apart = (target["masks"][:, :high, :wide] != wanted["masks"][:, :high, :wide]).float().mean()
        if not apart < 0.01 or not (image[:, :high, :wide] - other[:, :high, :wide]).abs().mean() < 0.05:
            raise SystemExit(f"picture {i} differs from transforms v2's; not reported")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("step", "input"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="of the input pipeline")
    args = parser.parse_args()
    if args.only != "input":
        step(args.threads)
    if args.only != "step":
        input_pipeline(args.rounds)


if __name__ == "__main__":
    main()

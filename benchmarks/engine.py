"""What the training engine's care costs: a step with all checks against a bare one, and the stall of a checkpoint.

    python benchmarks/engine.py                  the digits recipe at batch 64, and ViT-Tiny at batch 32
    python benchmarks/engine.py --only tiny      one of them (digits, tiny)
    python benchmarks/engine.py --checkpoint     the stall of one checkpoint of ViT-Small, in steps

Bare is forward, loss, backward, clipping, optimizer step and learning rate. Checked is the engine's own loop around
the same: seeds for every step, numbers looked at before the update, counts, stop requests, and the logs on disk.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from crosshead.data.base import Batch, DatasetInfo
from crosshead.recipe.compose import load_recipe
from crosshead.tasks import open_task
from crosshead.train.checkpoint.saver import Saver
from crosshead.train.checkpoint.state import TrainState
from crosshead.train.checkpoint.store import CheckpointStore
from crosshead.train.distributed.groups import World
from crosshead.train.distributed.watchdog import Watchdog
from crosshead.train.events import EndRecord, RunInfo
from crosshead.train.logging.callbacks import CallbackList
from crosshead.train.logging.log_files import JsonLines, TensorBoard
from crosshead.train.loop.build import Training
from crosshead.train.loop.devices import tune_allocator
from crosshead.train.loop.lengths import TrainingLength
from crosshead.train.loop.loaders import DataLoaders, EvalSplit
from crosshead.train.loop.optim import build_optimizer, build_schedule
from crosshead.train.loop.signals import StopRequest
from crosshead.train.loop.trainer import Trainer
from interleave import RESULTS, Timing, compare, conditions, report

PLAIN = ["train.precision=fp32", "train.device=cpu", "train.epochs=999"]
CASES = {
    # name: title, recipe, batch, classes, steps in a turn, turns
    "digits": ("digits recipe, batch 64", "digits_mohsa", 64, 10, 10, 90),
    "tiny": ("ViT-Tiny, batch 32", "vit_tiny_16_224_imagenet", 32, 1000, 1, 15),
}


class Side:
    """A recipe's model, average, optimizer and schedule, and the batches of a turn; both sides begin alike."""

    def __init__(self, recipe: str, batch: int, classes: int, steps: int) -> None:
        self.recipe = load_recipe(recipe, [*PLAIN, f"data.batch_size={batch}"])
        data, train = self.recipe.data, self.recipe.train
        torch.manual_seed(0)
        statistics = (0.5,) * data.channels
        info = DatasetInfo("random", tuple(map(str, range(classes))), data.channels, statistics, statistics)
        self.task = open_task(self.recipe, info)
        self.model = self.task.build_model()
        self.ema = None if train.ema_decay is None else ModelEmaV3(self.model, train.ema_decay, foreach=True)
        self.optimizer = build_optimizer(self.model, self.recipe.optimizer, batch)
        self.set_rate: Callable[[int], float] = build_schedule(
            self.optimizer,
            self.recipe.schedule,
            total_steps=train.epochs * steps,
            steps_per_epoch=steps,
            scale=1.0,
        )
        generator = torch.Generator().manual_seed(1)
        shape = (batch, data.channels, data.image_size, data.image_size)
        names = tuple(f"image {number}" for number in range(batch))
        self.batches = [
            Batch(
                torch.randn(shape, generator=generator),
                torch.randint(classes, (batch,), generator=generator),
                torch.arange(batch),
                names,
            )
            for _ in range(steps)
        ]

    def weights(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self.model.parameters()]


class Bare(Side):
    def __init__(self, recipe: str, batch: int, classes: int, steps: int) -> None:
        super().__init__(recipe, batch, classes, steps)
        self.step = 0
        self.parameters = list(self.model.parameters())

    def turn(self) -> None:
        self.model.train()
        for batch in self.batches:
            self.set_rate(self.step)
            self.optimizer.zero_grad(set_to_none=True)
            (self.task.step(self.model, batch).losses["loss"] / len(batch)).backward()
            if self.recipe.optimizer.clip_grad is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.recipe.optimizer.clip_grad)
            self.optimizer.step()
            if self.ema is not None:
                self.ema.update(self.model)
            self.step += 1


class Checked(Side):
    def __init__(self, folder: Path, recipe: str, batch: int, classes: int, steps: int) -> None:
        super().__init__(recipe, batch, classes, steps)
        count = sum(map(len, self.batches))
        loaders = DataLoaders(lambda epoch, start: self.batches, EvalSplit(lambda: [], 0), None)
        lengths = TrainingLength(batch, count, self.recipe.train.epochs * steps)
        self.state = TrainState(self.model, self.optimizer, self.ema, None)
        every = self.recipe.log.every_steps
        self.callbacks = CallbackList([JsonLines(folder, every), TensorBoard(folder, every)])
        self.callbacks.on_start(
            RunInfo(folder, "", "", "", "cpu", "fp32", 1, 0, 0.0, 0, 0, 0, 1, 1, 1, 0, "accuracy", ())
        )
        saver = Saver(CheckpointStore(folder), self.recipe.checkpoint, {}, active=True)
        world = World()
        training = Training(
            self.recipe,
            self.task,
            lengths,
            self.state,
            self.model,
            self.set_rate,
            world,
            Watchdog(world, 600),
        )
        # The stop request is not entered: a signal ends the benchmark.
        self.trainer = Trainer(
            training, loaders=loaders, saver=saver, callback=self.callbacks, stop=StopRequest()
        )

    def turn(self) -> None:
        self.state.progress.samples = 0
        self.trainer.train_epoch()

    def close(self) -> None:
        self.callbacks.on_end(EndRecord("finished", "", None))


def overhead(name: str, rounds_scale: float) -> dict[str, list[Timing]]:
    title, recipe, batch, classes, steps, turns = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        bare = Bare(recipe, batch, classes, steps)
        checked = Checked(Path(folder), recipe, batch, classes, steps)
        timings = compare(
            {"bare": bare.turn, "checked": checked.turn}, rounds=max(5, round(turns * rounds_scale)), warmup=2
        )
        checked.close()
        different = sum(not torch.equal(a, b) for a, b in zip(bare.weights(), checked.weights(), strict=True))
        if different:
            raise SystemExit(f"{title}: {different} parameters differ between the two sides; not reported")
    return {f"{title}, {steps} steps a turn": timings}


def stall(batch: int) -> dict[str, float]:
    """Seconds of a ViT-Small step, alone and beside a checkpoint that is being written, and of the copy before it."""
    side = Bare("vit_small_16_224_imagenet", batch, 1000, 1)
    state = TrainState(side.model, side.optimizer, side.ema, None)
    side.turn()
    alone, beside, copies, writes = [], [], [], []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        store = CheckpointStore(Path(folder))
        with Saver(store, side.recipe.checkpoint, {}, active=True) as saver:
            for number in range(3):
                alone.append(timed(side.turn))
                state.progress.step = number
                copies.append(timed(partial(saver.save, state)))
                beside.append(timed(side.turn))
                writes += [event.details["seconds"] for event in saver.finish()]
        tensors, values = state.snapshot()
        waiting = timed(lambda: store.write(9, tensors, values))
        size = sum(file.stat().st_size for file in store.path(9).iterdir())
    step = statistics.median(alone)
    slowed = statistics.median(beside) - step
    return {
        "checkpoint_mb": size / 1e6,
        "step_s": step,
        "copy_s": statistics.median(copies),
        "written_in_background_in_s": statistics.median(writes),
        "step_slowed_by_s": slowed,
        "stall_in_steps": (statistics.median(copies) + slowed) / step,
        "stall_in_steps_if_written_in_foreground": (statistics.median(copies) + waiting) / step,
    }


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=CASES, help="one of the two models")
    parser.add_argument("--checkpoint", action="store_true", help="the stall of a checkpoint")
    parser.add_argument("--batch", type=int, default=32, help="of the step that the stall is counted in")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="how many turns to take, relative to the default"
    )
    options = parser.parse_args()
    header = conditions(tune_allocator())
    if options.checkpoint:
        report_stall(header, stall(options.batch), options.batch)
        return
    for name in [options.only] if options.only else CASES:
        report(RESULTS / f"engine_{name}_cpu.json", header, overhead(name, options.scale))


def report_stall(header: dict, found: dict[str, float], batch: int) -> None:
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    print(f"ViT-Small, batch {batch}")
    for key, value in found.items():
        print(f"  {key:42s} {value:.3f}")
    content = {"conditions": header, f"ViT-Small, batch {batch}": found}
    (RESULTS / "engine_checkpoint_cpu.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

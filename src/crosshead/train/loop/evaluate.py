"""Exact evaluation: every image once, on any number of processes."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from crosshead.data.loading.batch import Batch
from crosshead.data.transforms.pipeline import image_size
from crosshead.recipe.schema import DataConfig
from crosshead.train.loop.devices import autocast
from crosshead.train.processes.distributed import World
from crosshead.train.processes.sharding import is_sharded
from crosshead.train.processes.watchdog import Phase


class Evaluation(Protocol):
    """A task's judge. ``rows`` is what this process saw, ``compute`` judges what all of them saw together."""

    def update(self, predictions: Tensor, batch: Batch) -> None: ...

    def rows(self) -> Any: ...

    def compute(self, rows: list[Any]) -> dict[str, float]: ...


class Batches(Protocol):
    """A process's share of a data set."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...


def evaluate(
    model: nn.Module,
    loader: Batches,
    evaluation: Evaluation,
    *,
    images: int,
    world: World,
    precision: str = "fp32",
    blank: Tensor | None = None,
    stopped: Callable[[], bool] = lambda: False,
    left_out: Callable[[list[tuple[str, str]]], None] = lambda broken: None,
    beat: Callable[[Phase, int], None] = lambda phase, batch: None,
) -> dict[str, float] | None:
    """Metrics over the ``images`` that the loaders of all processes hold together, plus "skipped" if any were.

    The model is left in the mode in which it was. ``stopped`` is asked before every batch; where any process
    says yes, all return None. ``beat`` is told how far this process has come. ``blank`` (1, C, H, W) is given for a
    sharded model: all processes have to call it equally often, so those with fewer batches call it on that.
    ``left_out`` is told the broken images (name, reason) of all processes.

    Raises:
        RuntimeError: an image came twice, or not at all.
    """
    was_training = model.training
    device = next(model.parameters()).device
    model.eval()
    rounds = 0 if blank is None else max(world.gather(len(loader)))
    seen: list[int] = []
    skipped: list[tuple[str, str]] = []
    stop = False
    calls = 0
    with torch.inference_mode(), autocast(precision, device):
        for number, batch in enumerate(loader):
            stop = stop or stopped()
            if stop and blank is None:
                break
            beat(Phase.EVALUATION, number)
            skipped += batch.skipped
            if len(batch):
                batch = batch.to(device)
                evaluation.update(model(batch.images), batch)
                seen += batch.index.tolist()
                calls += 1
        for _ in range(calls, rounds):
            assert blank is not None
            model(blank.to(device))
    model.train(was_training)
    beat(Phase.EVALUATION_EXCHANGE, 0)
    parts = world.gather((evaluation.rows(), seen, skipped, stop))
    if any(part[3] for part in parts):
        return None
    broken = [each for part in parts for each in part[2]]
    _check_complete([i for part in parts for i in part[1]], len(broken), images)
    left_out(broken)
    metrics = evaluation.compute([part[0] for part in parts])
    return {**metrics, "skipped": float(len(broken))} if broken else metrics


def blank_image(model: nn.Module, data: DataConfig) -> Tensor | None:
    """What ``evaluate`` needs as ``blank``: an empty image for a sharded model, None for any other."""
    return torch.zeros(1, data.channels, *image_size(data)) if is_sharded(model) else None


def _check_complete(seen: list[int], skipped: int, images: int) -> None:
    if len(set(seen)) != len(seen) or len(seen) + skipped != images:
        raise RuntimeError(
            f"evaluation saw {len(seen)} images, {len(set(seen))} different ones, and skipped {skipped}, of {images}; "
            "the loaders of the processes do not share out the data set"
        )

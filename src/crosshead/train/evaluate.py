"""Exact evaluation: every image once, on any number of processes."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from crosshead.data.batch import Batch
from crosshead.train.devices import autocast
from crosshead.train.distributed import World
from crosshead.train.watchdog import Phase


class Evaluation(Protocol):
    """A task's judge. ``rows`` is what this process saw, ``compute`` judges what all of them saw together."""

    def update(self, predictions: Tensor, batch: Batch) -> None: ...

    def rows(self) -> Any: ...

    def compute(self, rows: list[Any]) -> dict[str, float]: ...


def evaluate(
    model: nn.Module,
    loader: Iterable[Batch],
    evaluation: Evaluation,
    *,
    images: int,
    world: World,
    precision: str = "fp32",
    stopped: Callable[[], bool] = lambda: False,
    beat: Callable[[Phase, int], None] = lambda phase, batch: None,
) -> dict[str, float] | None:
    """Metrics over the ``images`` that the loaders of all processes hold together, plus "skipped" if any were.

    The model is left in the mode in which it was. ``stopped`` is asked before every batch; where any process
    says yes, all return None. ``beat`` is told how far this process has come.

    Raises:
        RuntimeError: an image came twice, or not at all.
    """
    was_training = model.training
    device = next(model.parameters()).device
    model.eval()
    seen: list[int] = []
    skipped: list[str] = []
    stop = False
    with torch.inference_mode(), autocast(precision, device):
        for number, batch in enumerate(loader):
            if stop := stopped():
                break
            beat(Phase.EVALUATION, number)
            skipped += [name for name, _ in batch.skipped]
            if len(batch):
                batch = batch.to(device)
                evaluation.update(model(batch.images), batch)
                seen += batch.index.tolist()
    model.train(was_training)
    beat(Phase.EVALUATION_EXCHANGE, 0)
    parts = world.gather((evaluation.rows(), seen, skipped, stop))
    if any(part[3] for part in parts):
        return None
    _check_complete([i for part in parts for i in part[1]], sum(len(part[2]) for part in parts), images)
    metrics = evaluation.compute([part[0] for part in parts])
    left_out = sum(len(part[2]) for part in parts)
    return {**metrics, "skipped": float(left_out)} if left_out else metrics


def _check_complete(seen: list[int], skipped: int, images: int) -> None:
    if len(set(seen)) != len(seen) or len(seen) + skipped != images:
        raise RuntimeError(
            f"evaluation saw {len(seen)} images, {len(set(seen))} different ones, and skipped {skipped}, of {images}; "
            "the loaders of the processes do not share out the data set"
        )

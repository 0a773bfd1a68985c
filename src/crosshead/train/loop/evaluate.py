"""Exact evaluation: every image once, on any number of processes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import nn

from crosshead.data.base import Batch
from crosshead.tasks import EvalResult, Task
from crosshead.train.distributed.groups import World
from crosshead.train.distributed.sharding import is_sharded
from crosshead.train.distributed.watchdog import Phase
from crosshead.train.loop.devices import autocast


class Batches(Protocol):
    """A process's share of a data set."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...


def evaluate(
    task: Task,
    model: nn.Module,
    loader: Batches,
    *,
    images: int,
    world: World,
    precision: str = "fp32",
    predictions: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    left_out: Callable[[list[tuple[str, str]]], None] = lambda broken: None,
    beat: Callable[[Phase, int], None] = lambda phase, batch: None,
) -> EvalResult | None:
    """What ``task`` finds over the ``images`` that the loaders of all processes hold together, told to all of them;
    among the metrics "skipped" if any were.

    The model is left in the mode in which it was. ``stopped`` is asked before every batch; where any process
    says yes, all return None. ``beat`` is told how far this process has come. All processes have to call a sharded
    model equally often, so those with fewer batches call it on the task's blank one. ``left_out`` is told the broken
    images (name, reason) of all processes. Where a prediction is not finite, or the metric that selects is not defined
    on these images, what is given is no judgement: its metrics are NaN, and its ``fault`` says why.

    Raises:
        RuntimeError: an image came twice, or not at all.
    """
    was_training = model.training
    device = next(model.parameters()).device
    evaluation = task.evaluation(predictions=True) if predictions else task.evaluation()
    model.eval()
    # Each process has statistics of its own batches under batch norm; what is judged is rank 0's, which is saved.
    world.share(model.buffers())
    rounds = max(world.gather(len(loader))) if is_sharded(model) else 0
    seen: list[int] = []
    skipped: list[tuple[str, str]] = []
    lost: list[str] = []
    stop = False
    calls = taken = 0
    with torch.inference_mode(), autocast(precision, device):
        for number, batch in enumerate(loader):
            stop = stop or stopped()
            if stop and not rounds:
                break
            taken += 1
            beat(Phase.EVALUATION, number)
            skipped += batch.skipped
            if len(batch):
                batch = batch.to(device)
                said = task.predict(model, batch)
                fine = task.finite(said)
                if all(fine):
                    evaluation.update(said, batch)
                else:
                    lost += [name for name, known in zip(_names(batch), fine, strict=True) if not known]
                seen += batch.index.tolist()
                calls += 1
        for _ in range(calls, rounds):
            task.predict(model, task.empty_batch().to(device))
    model.train(was_training)
    beat(Phase.EVALUATION_EXCHANGE, 0)
    # A loader that is asked to stop while it waits for its workers ends early.
    if any(world.gather(stop or taken < len(loader))):
        return None
    sums = world.sum(evaluation.sums())
    parts = world.collect((evaluation.rows(), seen, skipped, lost))

    def judge() -> tuple[EvalResult, list[tuple[str, str]]]:
        broken = [each for part in parts for each in part[2]]
        _check_complete([i for part in parts for i in part[1]], len(broken), images)
        unknown, count = [name for part in parts for name in part[3]], images - len(broken)
        if unknown or not count:
            eval_result = _no_judgement(task, unknown, count)
        else:
            eval_result = _checked(task, evaluation.compute(sums, [part[0] for part in parts]))
        metrics = {**eval_result.metrics, "skipped": float(len(broken))} if broken else eval_result.metrics
        # All objects of a large set are not sent to every process, which has no use for them.
        outputs = eval_result.outputs if world.size == 1 else None
        return replace(eval_result, metrics=metrics, outputs=outputs), broken

    eval_result, broken = world.run_on_rank0(judge)
    left_out(broken)
    return eval_result


def _names(batch: Batch) -> list[str]:
    return list(batch.names) or [f"image {i}" for i in batch.index.tolist()]


def _no_judgement(task: Task, unknown: list[str], count: int) -> EvalResult:
    metrics = dict.fromkeys((task.primary.name, *task.shown), math.nan) | {"count": float(count)}
    if not count:
        return EvalResult(metrics, fault="no image could be read")
    names = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
    return EvalResult(
        metrics, fault=f"what the model says of {len(unknown)} of {count} images is not finite ({names})"
    )


def _checked(task: Task, eval_result: EvalResult) -> EvalResult:
    if math.isfinite(eval_result.metrics.get(task.primary.name, math.nan)):
        return eval_result
    count = eval_result.metrics["count"]
    return replace(eval_result, fault=f"{task.primary.label} is not defined on these {count:.0f} images")


def _check_complete(seen: list[int], skipped: int, images: int) -> None:
    if len(set(seen)) != len(seen) or len(seen) + skipped != images:
        raise RuntimeError(
            f"evaluation saw {len(seen)} images, {len(set(seen))} different ones, and skipped {skipped}, of {images}; "
            "the loaders of the processes do not share out the data set"
        )

"""What a run needs before its first step: its folder, data, task and model, and what takes steps of them."""

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from crosshead.data.base import DatasetInfo, Splits
from crosshead.data.batching.loader import worker_advice
from crosshead.data.datasets.fingerprint import fingerprint
from crosshead.recipe.schema import Recipe
from crosshead.train.anchors import as_recorded_anchors, with_fitted_anchors
from crosshead.train.checkpoint.memory import Memory, as_context, recall, write_pictures
from crosshead.train.checkpoint.resume import Start, claim_folder, find_start
from crosshead.train.checkpoint.store import CheckpointStore
from crosshead.train.distributed.groups import World
from crosshead.train.distributed.watchdog import Watchdog
from crosshead.train.events import RunInfo
from crosshead.train.loop.build import Training, build_training
from crosshead.train.loop.devices import (
    choose_device,
    deterministic_algorithms,
    precision_advice,
    tune_allocator,
)
from crosshead.train.loop.lengths import TrainingLength
from crosshead.train.loop.model import build_model, count_gmacs
from crosshead.train.loop.signals import StopRequest
from crosshead.train.loop.teaching import Teacher
from crosshead.train.loop.trainer import Trainer
from crosshead.train.precheck import check_contents, precheck
from crosshead.train.resolve import as_recorded, check_presumed_weights, with_resolved_data
from crosshead.train.run_folder.design import tensor_digests
from crosshead.train.run_folder.folder import describe_run
from crosshead.train.run_folder.lock import FolderLock
from crosshead.train.teacher import load_teacher, told_teacher


@dataclass
class RunContext:
    """One run, in one of its processes, as its four steps hand it on.

    ``start`` is the checkpoint to go on from, and ``memory`` what its run remembers; ``info`` and ``splits`` are the
    data; ``remembered`` goes into every checkpoint beside the state; ``initial`` are digests of the first tensors, in
    rank 0; ``notes`` and ``advice`` are to be told once there are logs; what ends with the run is on ``stack``.
    """

    training: Training
    store: CheckpointStore
    lock: FolderLock
    start: Start
    memory: Memory
    splits: Splits
    info: DatasetInfo
    remembered: dict[str, Any]
    initial: dict[str, str]
    gmacs: float
    stop: StopRequest
    notes: tuple[str, ...]
    advice: list[tuple[str, str]]
    stack: ExitStack
    trainer: Trainer = field(init=False)  # these from ``fit`` on
    run_info: RunInfo = field(init=False)
    finished: bool = False

    def describe(self, folder: Path) -> None:
        """Put into ``folder`` what a run folder holds beside checkpoints and logs."""
        recipe = self.training.recipe
        describe_run(folder, recipe, self.info)
        write_pictures(folder, self.memory.pictures(self.splits, recipe.data.root))


def prepare(
    recipe: Recipe,
    folder: Path | None,
    resume: Path | bool,
    world: World,
    watchdog: Watchdog,
    stack: ExitStack,
) -> RunContext:
    """Claim the run's folder, open its data and build what takes steps. Nothing lasting is written yet."""
    stop = stack.enter_context(StopRequest())
    stack.enter_context(deterministic_algorithms(recipe.train.deterministic))
    _check_same_recipe(recipe, world)
    device = choose_device(recipe.train.device, world.local_rank)
    if device.type == "cpu":
        tune_allocator()
    lock, folder, resume = _claim_folder(recipe, folder, resume, world)
    stack.callback(lock.release)

    store = CheckpointStore(folder)
    start = world.run_on_rank0(lambda: find_start(store, resume))
    recipe = as_recorded(recipe, start.state)
    memory = world.run_on_rank0(lambda: recall(start))
    splits = memory.open(recipe)
    recipe = with_resolved_data(recipe, splits.resolved)
    if start.state:
        recipe = as_recorded_anchors(recipe, start.state["recipe"])
    recipe, anchored = with_fitted_anchors(recipe, splits)
    info = memory.info_with(recipe, splits.info)
    task = precheck(recipe, splits, info)
    notes = (*splits.notes, *splits.seen, *world.run_on_rank0(lambda: check_contents(task, splits)))

    lengths = TrainingLength.of(recipe, len(splits.train), world.size)
    if not start.state:
        check_presumed_weights(recipe)
    model = build_model(recipe, task, from_weights=not start.state)
    initial = tensor_digests(model) if world.is_rank0 and not start.state else {}
    gmacs = count_gmacs(*task.example(model))
    # Before a checkpoint is restored: the schedule is the recipe's, and making it touches the optimizer's rate.
    teacher = load_teacher(recipe, task, info, device)
    training = build_training(recipe, task, model, lengths, device, world, watchdog, teacher)
    told = [anchored, "" if teacher is None else told_teacher(teacher)]
    return RunContext(
        training=training,
        store=store,
        lock=lock,
        start=start,
        memory=memory,
        splits=splits,
        info=info,
        remembered=_remembered(recipe, splits, info, world, teacher),
        initial=initial,
        gmacs=gmacs,
        stop=stop,
        notes=notes,
        advice=[*(("note", words) for words in told if words), *_advice(recipe, device, world)],
        stack=stack,
    )


def _check_same_recipe(recipe: Recipe, world: World) -> None:
    digest = hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()
    others = world.gather(digest)
    different = [rank for rank, other in enumerate(others) if other != others[0]]
    if different:
        raise ValueError(
            f"processes {different} were started with another recipe than process 0; start all alike"
        )


def _claim_folder(
    recipe: Recipe, folder: Path | None, resume: Path | bool, world: World
) -> tuple[FolderLock, Path, Path | bool]:
    """Rank 0 chooses the folder, makes sure that it can be written, and locks it for all."""
    locks: list[FolderLock] = []

    def claim() -> tuple[Path, Path | bool]:
        lock, resolved, start = claim_folder(recipe, folder, resume)
        locks.append(lock)
        return resolved, start

    resolved, start = world.run_on_rank0(claim)
    return locks[0] if locks else FolderLock(resolved), resolved, start


def _remembered(
    recipe: Recipe, splits: Splits, info: DatasetInfo, world: World, teacher: Teacher | None
) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "classes": list(splits.info.class_names),
        "info": as_context(info),
        "held_out": splits.held_out,
        "data": world.run_on_rank0(lambda: fingerprint(splits, recipe.data.root)),
        "processes": world.size,
        "teacher": None if teacher is None else teacher.digest,
    }


def _advice(recipe: Recipe, device: torch.device, world: World) -> list[tuple[str, str]]:
    """The kinds and words of events that say what would make the run faster."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    found = [
        ("note", worker_advice(recipe.data.num_workers, here)),
        ("slow", precision_advice(recipe.train.precision, device)),
    ]
    return [(kind, words) for kind, words in found if words is not None]

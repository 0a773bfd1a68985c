"""A run from its recipe to its result: this is where the parts of training are put together."""

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from crosshead.data.base import ImageSet, Splits
from crosshead.data.batching.loader import (
    Loader,
    Waiting,
    evaluation_loader,
    training_loader,
    worker_advice,
)
from crosshead.data.batching.workers import Workers, WorkersLost
from crosshead.data.datasets.fingerprint import fingerprint
from crosshead.ops.renamed import warn_of
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Task
from crosshead.train.checkpoint.memory import Memory, as_context, recall, write_pictures
from crosshead.train.checkpoint.rescue import RescuedState, rescue
from crosshead.train.checkpoint.resume import (
    Start,
    claim_folder,
    compare,
    find_start,
    own_folder,
    resolve_start,
)
from crosshead.train.checkpoint.saver import Saver
from crosshead.train.checkpoint.state import TrainState
from crosshead.train.checkpoint.store import CheckpointStore
from crosshead.train.contents import check_contents
from crosshead.train.design import describe_design, tensor_digests, write_design
from crosshead.train.distributed import groups as distributed
from crosshead.train.distributed.groups import World
from crosshead.train.distributed.sharding import is_sharded
from crosshead.train.distributed.watchdog import Watchdog
from crosshead.train.events import Callback, EndRecord, EventRecord, RunInfo
from crosshead.train.logging.build import build_callbacks
from crosshead.train.logging.files import CallbackList
from crosshead.train.loop.allocator import tune_allocator
from crosshead.train.loop.build import build_model, build_training
from crosshead.train.loop.devices import (
    choose_device,
    deterministic_algorithms,
    precision_advice,
)
from crosshead.train.loop.finish import (
    finished_result,
    result_of,
    set_result_aside,
    stopped_result,
    unsaved_result,
    write_result,
)
from crosshead.train.loop.lengths import TrainingLength
from crosshead.train.loop.loop import Loop
from crosshead.train.loop.measure import count_gmacs, count_parameters
from crosshead.train.loop.run import EvalSplit, Run, Source
from crosshead.train.loop.signals import StopRequest
from crosshead.train.precheck import precheck
from crosshead.train.resolve import as_recorded, check_presumed_weights, resolve, settled_by, taken_from_run
from crosshead.train.result import BadNumbers, Result
from crosshead.train.run_folder.folder import changed_versions, describe_run
from crosshead.train.run_folder.lock import FolderLock, check_platform


def train(
    recipe: Recipe,
    *,
    folder: Path | None = None,
    resume: Path | bool = False,
    callback: Callback | None = None,
    observer: Callback | None = None,
) -> Result:
    """Train, select on the validation split, and test once.

    Started by torchrun, every process calls it; rank 0 alone writes and talks to ``callback``.

    Args:
        recipe: the run, whole.
        folder: the run folder; by default the first free one of ``output/name``, ``output/name-2``, ...
        resume: True goes on from the newest good checkpoint of the folder (from the beginning where there is
            none); a path names a run folder or one checkpoint in it.
        callback: told what happens, beside the logs in the folder.
        observer: the name of ``callback`` in 0.1.

    Raises:
        ValueError: the recipe, the data, the folder or the checkpoint cannot be used; the message says why.
        BadNumbers: too many steps in a row were not finite.
        WorkersLost: a process that loads data died or could not hand over a batch; the state was saved before.
    """
    check_platform()
    if observer is not None:
        warn_of("train(observer=)", "train(callback=)")
        callback = observer
    given, own = recipe, own_folder(recipe, folder, resume)
    recipe = resolve(recipe, own)
    taken = "" if own is not None else taken_from_run(given, recipe)
    world = distributed.meet(recipe.train.rank_timeout_s)
    with ExitStack() as stack:
        watchdog = stack.enter_context(Watchdog(world, recipe.train.rank_timeout_s))
        try:
            distributed.connect(world, recipe.train.rank_timeout_s)
            return _train(recipe, taken, folder, resume, callback, world, watchdog, stack)
        except (BadNumbers, WorkersLost):  # all agree on it: none has to be told
            raise
        except Exception as error:
            cause = watchdog.failure()
            watchdog.fail(f"{type(error).__name__}: {error}")
            if world.size > 1:
                get_error_handler().record_exception(error)
            # A process whose partner is gone only sees a broken connection.
            if cause is not None and isinstance(error, RuntimeError):
                raise RuntimeError(f"ended because {cause}") from error
            raise


def _train(
    recipe: Recipe,
    taken: str,
    folder: Path | None,
    resume: Path | bool,
    callback: Callback | None,
    world: World,
    watchdog: Watchdog,
    stack: ExitStack,
) -> Result:
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
    recipe = settled_by(recipe, splits.resolved)
    info = memory.info_with(recipe, splits.info)
    task = precheck(recipe, splits, info)
    notes = (*splits.notes, *splits.seen, *world.run_on_rank0(lambda: check_contents(task, splits)))
    lengths = TrainingLength.of(recipe, len(splits.train), world.size)
    if not start.state:
        check_presumed_weights(recipe)
    model = build_model(recipe, task, from_weights=not start.state)
    tensors = tensor_digests(model) if world.is_rank0 and not start.state else {}
    gmacs = count_gmacs(*task.example(model))
    # Before a checkpoint is restored: the schedule is the recipe's, and making it touches the optimizer's rate.
    training = build_training(recipe, task, model, lengths, device, world, watchdog)
    state = training.state

    context = {
        "recipe": recipe.model_dump(mode="json"),
        "classes": list(splits.info.class_names),
        "info": as_context(info),
        "held_out": splits.held_out,
        "data": world.run_on_rank0(lambda: fingerprint(splits, recipe.data.root)),
        "processes": world.size,
    }
    events = [
        *_lock_events(lock),
        *([EventRecord("note", taken, state.progress.step)] if taken else []),
        *_restore(state, start, store, memory, context, world),
        *memory.events(splits.info, state.progress.step),
        *_worker_events(recipe, world, state),
        *_precision_events(recipe, device, state),
        *(EventRecord("data", note, state.progress.step) for note in notes),
    ]
    if lengths.is_over(state.progress, recipe.train.patience):
        before = world.run_on_rank0(lambda: result_of(store, state.progress.step))
        if before is not None:
            return _repeated(before, callback, world)
    events += world.run_on_rank0(lambda: set_result_aside(folder, state.progress.step))
    model_now = None if is_sharded(state.model) else lambda: state.evaluated_model
    callbacks = (
        build_callbacks(folder, recipe, callback, task, splits.validation, model_now)
        if world.is_rank0
        else CallbackList([])
    )
    watchdog.report = lambda message: callbacks.on_event(EventRecord("hung", message, state.progress.step))
    saver = stack.enter_context(Saver(store, recipe.checkpoint, context, active=world.is_rank0, lock=lock))

    def describe(place: Path) -> None:
        describe_run(place, recipe, info)
        write_pictures(place, memory.pictures(splits, recipe.data.root))

    if world.is_rank0:
        events += [
            EventRecord("versions_changed", words, state.progress.step) for words in changed_versions(folder)
        ]
        describe(folder)
        if not start.state:
            write_design(folder, describe_design(recipe, splits, task, context, tensors))
    waits = _Waits(recipe, state, saver, callbacks, stop, world)
    source = _source(recipe, splits, task, world, waits, stack)
    run = Run(**vars(training), source=source, saver=saver, callback=callbacks, stop=stop)
    run_info = _run_info(run, folder, splits, gmacs)
    callbacks.on_start(run_info)
    for event in events:
        callbacks.on_event(event)

    loop = Loop(run)
    try:
        finished = loop.run()
        if not world.run_on_rank0(lambda: saver.has(state.progress.step)):
            saver.replace_lost(state, evaluated=finished)
        left = world.run_on_rank0(lambda: _secure(saver, state, describe))
        for event in saver.finish():
            callbacks.on_event(event)
        seconds = loop.elapsed()
        if left is not None:
            callbacks.on_event(left.event(store))
            result = unsaved_result(run, run_info, seconds, left)
        else:
            result = (finished_result if finished else stopped_result)(run, run_info, seconds)
        # After all is written: a run whose data fails it is told of as failed, and goes on from where it was.
        faults = [fault for fault in world.gather(stop.fault) if fault is not None]
        if faults and left is None:
            raise WorkersLost(
                f"{faults[0]}. The state after step {state.progress.step} is saved; --resume goes on"
            )
        if result.status == "finished":
            outcome = result
            result = world.run_on_rank0(lambda: write_result(outcome, callbacks))
    except Exception as error:
        for event in saver.finish():
            callbacks.on_event(event)
        callbacks.on_end(EndRecord("failed", watchdog.failure() or str(error), None))
        raise
    words = left.event(store).message if left is not None else _closing_words(result)
    callbacks.on_end(EndRecord(result.status, words, result))
    return result


def _secure(saver: Saver, state: TrainState, describe: Callable[[Path], None]) -> RescuedState | None:
    """The last state, where the run's folder does not take it: what became of it."""
    copy = saver.secure()
    if copy is None:
        return None
    rescued = rescue(copy, saver.store, describe, earlier=saver.reading, gone=saver.lost_folder())
    if rescued.weights is None:
        saver.give_up(state.progress)
    return rescued


def _restore(
    state: TrainState,
    start: Start,
    store: CheckpointStore,
    memory: Memory,
    context: dict[str, Any],
    world: World,
) -> list[EventRecord]:
    """Take over the checkpoint to go on from, if any; what to say about it. Nothing is written where it is refused."""
    changes = []
    if start.state:
        changes = compare(start.state, context)
        memory.check(start.state, context)
        state.restore(start.tensors, start.state)
    events, best = world.run_on_rank0(lambda: resolve_start(store, start))
    state.progress.best_step, state.progress.best = best
    if best[0] is None:
        state.progress.details = {}
    return [*events, *changes]


def _repeated(result: Result, callback: Callback | None, world: World) -> Result:
    """A finished run is told again, and nothing is logged."""
    if callback is not None and world.is_rank0:
        words = (
            f"{result.folder} is finished: step {result.selected_step} was selected; nothing is left to do"
        )
        callback.on_end(EndRecord("finished", words, result))
    return result


def _closing_words(result: Result) -> str:
    if result.status == "unsaved":
        return f"step {result.step} is the last, and its result could not be written into {result.folder}"
    if result.status == "stopped":
        return f"stopped after step {result.step}; resume to go on from {result.folder}"
    return f"finished after step {result.step}; step {result.selected_step} was selected"


def _claim_folder(
    recipe: Recipe, folder: Path | None, resume: Path | bool, world: World
) -> tuple[FolderLock, Path, Path | bool]:
    """Rank 0 settles on the folder, makes sure that it can be written, and locks it for all."""
    locks: list[FolderLock] = []

    def claim() -> tuple[Path, Path | bool]:
        lock, resolved, start = claim_folder(recipe, folder, resume)
        locks.append(lock)
        return resolved, start

    resolved, start = world.run_on_rank0(claim)
    return locks[0] if locks else FolderLock(resolved), resolved, start


def _lock_events(lock: FolderLock) -> list[EventRecord]:
    if lock.stale_owner is None:
        return []
    return [EventRecord("lock", f"{lock.stale_owner} held this folder and ended without releasing it", 0)]


def _worker_events(recipe: Recipe, world: World, state: TrainState) -> list[EventRecord]:
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    advice = worker_advice(recipe.data.num_workers, here)
    return [] if advice is None else [EventRecord("note", advice, state.progress.step)]


def _precision_events(recipe: Recipe, device: torch.device, state: TrainState) -> list[EventRecord]:
    advice = precision_advice(recipe.train.precision, device)
    return [] if advice is None else [EventRecord("slow", advice, state.progress.step)]


def _check_same_recipe(recipe: Recipe, world: World) -> None:
    digest = hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()
    others = world.gather(digest)
    different = [rank for rank, other in enumerate(others) if other != others[0]]
    if different:
        raise ValueError(
            f"processes {different} were started with another recipe than process 0; start all alike"
        )


class _Waits:
    """What may end a run's waits for data: a stop that is asked for, and workers that fail.

    Where one fails, this process makes the batches that are missing, so that all processes come to the end of their
    step, and the run is asked to stop there.
    """

    def __init__(
        self,
        recipe: Recipe,
        state: TrainState,
        saver: Saver,
        callbacks: CallbackList,
        stop: StopRequest,
        world: World,
    ) -> None:
        self.state, self.saver, self.callbacks, self.stop, self.world = state, saver, callbacks, stop, world
        # Half of the time after which the others would call this process hung.
        self.patience_s = recipe.train.rank_timeout_s / 2

    def in_training(self) -> Waiting:
        # Of several processes none may leave a step that the others have begun.
        stopped = self._stopped if self.world.size == 1 else lambda: False
        return Waiting(stopped, self.patience_s, self._lost_in_training)

    def in_evaluation(self) -> Waiting:
        return Waiting(self._stopped, self.patience_s, self._lost)

    def _stopped(self) -> bool:
        return self.stop.name is not None

    def _lost_in_training(self, fault: str) -> None:
        self._lost(fault)
        if self.world.size == 1:  # whatever becomes of the batches that this process now makes itself
            self.saver.save(self.state)

    def _lost(self, fault: str) -> None:
        self.stop.ask(fault)
        message = f"{fault}. The run makes the batches of this step itself, and then stops"
        self.callbacks.on_event(EventRecord("workers_lost", message, self.state.progress.step))


def _source(
    recipe: Recipe, splits: Splits, task: Task, world: World, waits: _Waits, stack: ExitStack
) -> Source:
    share: dict[str, int] = {"rank": world.rank, "world_size": world.size}

    def workers() -> Workers:
        own = Workers(recipe.data.num_workers)
        stack.callback(own.end, at_once=True)
        return own

    def training(epoch: int, start: int) -> Loader:
        batches = task.training_batches(splits.train, seed=recipe.train.seed, epoch=epoch)
        steps, waiting = recipe.train.accumulation_steps, waits.in_training()
        return training_loader(
            batches, start=start, accumulation_steps=steps, workers=trainers, waiting=waiting, **share
        )

    def held(split: str, images: ImageSet, workers: Workers | None) -> EvalSplit:
        batches, policy, waiting = (
            task.evaluation_batches(images),
            splits.broken_policy(split),
            waits.in_evaluation(),
        )
        loader = partial(evaluation_loader, batches, policy=policy, workers=workers, waiting=waiting, **share)
        return EvalSplit(loader, len(images))

    trainers = workers()
    test = None if splits.test is None else held("test", splits.test, None)
    return Source(training, held("validation", splits.validation, workers()), test)


def _run_info(run: Run, folder: Path, splits: Splits, gmacs: float) -> RunInfo:
    recipe, source = run.recipe, run.source
    return RunInfo(
        folder=folder,
        name=recipe.name,
        model=recipe.model.name,
        dataset=splits.info.name,
        device=str(next(run.state.model.parameters()).device),
        precision=recipe.train.precision,
        processes=run.world.size,
        parameters=count_parameters(run.state.model),
        gmacs=gmacs,
        train_images=len(splits.train),
        validation_images=source.validation.images,
        test_images=0 if source.test is None else source.test.images,
        epochs=run.lengths.epochs,
        steps_per_epoch=run.lengths.steps_per_epoch,
        total_steps=run.state.progress.step + run.lengths.steps_left(run.state.progress),
        start_step=run.state.progress.step,
        metric=run.task.primary.name,
        shown=run.task.shown,
        mid_epoch=run.state.progress.samples > 0,
    )

"""A run from its recipe to its result, in four steps: prepare, restore, fit, finish."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from crosshead.data.batching.workers import WorkersLost
from crosshead.ops.renamed import warn_of
from crosshead.recipe.schema import Recipe
from crosshead.train.checkpoint.rescue import RescuedState, rescue
from crosshead.train.checkpoint.resume import compare, own_folder, resolve_start
from crosshead.train.checkpoint.saver import Saver
from crosshead.train.distributed import groups as distributed
from crosshead.train.distributed.groups import World
from crosshead.train.distributed.sharding import is_sharded
from crosshead.train.distributed.watchdog import Watchdog
from crosshead.train.events import BadNumbers, Callback, EndRecord, EventRecord, Result, RunInfo
from crosshead.train.logging.callbacks import CallbackList, build_callbacks
from crosshead.train.loop.finish import (
    finished_result,
    result_of,
    set_result_aside,
    stopped_result,
    unsaved_result,
    write_result,
)
from crosshead.train.loop.loaders import DataLoaders, Waits, build_loaders
from crosshead.train.loop.model import count_parameters
from crosshead.train.loop.trainer import Trainer
from crosshead.train.prepare import RunContext, prepare
from crosshead.train.resolve import resolve, taken_from_run
from crosshead.train.run_folder.design import describe_design, write_design
from crosshead.train.run_folder.folder import changed_versions
from crosshead.train.run_folder.lock import check_platform


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
    own = own_folder(recipe, folder, resume)
    resolved = resolve(recipe, own)
    taken = "" if own is not None else taken_from_run(recipe, resolved)
    with ExitStack() as stack, _processes(resolved, stack) as (world, watchdog):
        context = prepare(resolved, folder, resume, world, watchdog, stack)
        events = restore(context, taken)
        if (before := _result_before(context)) is not None:
            return _tell_again(before, callback, world)
        fit(context, events, callback)
        return finish(context)


def restore(context: RunContext, taken: str = "") -> list[EventRecord]:
    """Take over the checkpoint to go on from, if any; what to say of the start. Nothing is written where it is refused.

    ``taken``: what the recipe has from the run of its first weights, in words.
    """
    state, start, lock, memory = context.training.state, context.start, context.lock, context.memory
    events = []
    if lock.stale_owner is not None:
        events.append(
            EventRecord("lock", f"{lock.stale_owner} held this folder and ended without releasing it", 0)
        )
    if taken:
        events.append(EventRecord("note", taken, 0))
    changes = []
    if start.state:
        changes = compare(start.state, context.remembered)
        memory.check(start.state, context.remembered)
        state.restore(start.tensors, start.state)
    found, best = context.training.world.run_on_rank0(lambda: resolve_start(context.store, start))
    state.progress.best_step, state.progress.best = best
    if best[0] is None:
        state.progress.details = {}
    step = state.progress.step
    said = [*context.advice, *(("data", note) for note in context.notes)]
    return [
        *events,
        *found,
        *changes,
        *memory.events(context.splits.info, step),
        *(EventRecord(kind, words, step) for kind, words in said),
    ]


def fit(context: RunContext, events: list[EventRecord], callback: Callback | None = None) -> None:
    """Open the logs, tell them of ``events``, and train to the end of the recipe or until the run is asked to stop."""
    training, store = context.training, context.store
    state, world = training.state, training.world
    folder, step = store.run_folder, state.progress.step
    events = events + world.run_on_rank0(lambda: set_result_aside(folder, step))
    callbacks = _callbacks(context, callback)
    training.watchdog.report = lambda message: callbacks.on_event(
        EventRecord("hung", message, state.progress.step)
    )
    recipe, splits = training.recipe, context.splits
    saver = context.stack.enter_context(
        Saver(store, recipe.checkpoint, context.remembered, active=world.is_rank0, lock=context.lock)
    )
    if world.is_rank0:
        events += [EventRecord("versions_changed", words, step) for words in changed_versions(folder)]
        context.describe(folder)
        if not context.start.state:
            design = describe_design(recipe, splits, training.task, context.remembered, context.initial)
            write_design(folder, design)
    waits = Waits(training, saver=saver, callback=callbacks, stop=context.stop)
    loaders = build_loaders(training, splits, waits, context.stack)
    context.run_info = _run_info(context, loaders)
    callbacks.on_start(context.run_info)
    for event in events:
        callbacks.on_event(event)
    context.trainer = Trainer(training, loaders=loaders, saver=saver, callback=callbacks, stop=context.stop)
    with _told_of_failure(context.trainer):
        context.finished = context.trainer.fit()


def finish(context: RunContext) -> Result:
    """Make sure of the last state, test the selected weights where training has ended, and write the result."""
    trainer, run_info, world = context.trainer, context.run_info, context.training.world
    callback, state = trainer.callback, trainer.state
    with _told_of_failure(trainer):
        left = _secure(context)
        seconds = trainer.elapsed()
        if left is not None:
            callback.on_event(left.event(context.store))
            result = unsaved_result(trainer, run_info, seconds, left)
        elif context.finished:
            result = finished_result(trainer, run_info, seconds)
        else:
            result = stopped_result(trainer, run_info, seconds)
        # After all is written: a run whose data fails it is told of as failed, and goes on from where it was.
        faults = [fault for fault in world.gather(context.stop.fault) if fault is not None]
        if faults and left is None:
            raise WorkersLost(
                f"{faults[0]}. The state after step {state.progress.step} is saved; --resume goes on"
            )
        if result.status == "finished":
            outcome = result
            result = world.run_on_rank0(lambda: write_result(outcome, callback))
    words = left.event(context.store).message if left is not None else _closing_words(result)
    callback.on_end(EndRecord(result.status, words, result))
    return result


@contextmanager
def _processes(recipe: Recipe, stack: ExitStack) -> Iterator[tuple[World, Watchdog]]:
    """The run's processes, connected and watched; what fails in one is told to all, before ``stack`` ends."""
    timeout_s = recipe.train.rank_timeout_s
    world = distributed.meet(timeout_s)
    watchdog = stack.enter_context(Watchdog(world, timeout_s))
    try:
        distributed.connect(world, timeout_s)
        yield world, watchdog
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


@contextmanager
def _told_of_failure(trainer: Trainer) -> Iterator[None]:
    """What fails within is told to the logs, after the checkpoints that were being written."""
    try:
        yield
    except Exception as error:
        for event in trainer.saver.finish():
            trainer.callback.on_event(event)
        words = trainer.watchdog.failure() or str(error)
        trainer.callback.on_end(EndRecord("failed", words, None))
        raise


def _result_before(context: RunContext) -> Result | None:
    """The result of a run that is finished already."""
    training, step = context.training, context.training.state.progress.step
    return training.world.run_on_rank0(lambda: result_of(context.store, step)) if training.over else None


def _tell_again(result: Result, callback: Callback | None, world: World) -> Result:
    """A finished run is told again, and nothing is logged."""
    if callback is not None and world.is_rank0:
        words = (
            f"{result.folder} is finished: step {result.selected_step} was selected; nothing is left to do"
        )
        callback.on_end(EndRecord("finished", words, result))
    return result


def _callbacks(context: RunContext, callback: Callback | None) -> CallbackList:
    """Rank 0's; the others have none."""
    training, state = context.training, context.training.state
    if not training.world.is_rank0:
        return CallbackList([])
    model_now = None if is_sharded(state.model) else lambda: state.evaluated_model
    folder, validation = context.store.run_folder, context.splits.validation
    return build_callbacks(folder, training.recipe, callback, training.task, validation, model_now)


def _run_info(context: RunContext, loaders: DataLoaders) -> RunInfo:
    training, recipe, splits = context.training, context.training.recipe, context.splits
    progress, lengths, model = training.state.progress, training.lengths, training.state.model
    return RunInfo(
        folder=context.store.run_folder,
        name=recipe.name,
        model=recipe.model.name,
        dataset=splits.info.name,
        device=str(next(model.parameters()).device),
        precision=recipe.train.precision,
        processes=training.world.size,
        parameters=count_parameters(model),
        gmacs=context.gmacs,
        train_images=len(splits.train),
        validation_images=loaders.validation.images,
        test_images=0 if loaders.test is None else loaders.test.images,
        epochs=lengths.epochs,
        steps_per_epoch=lengths.steps_per_epoch,
        total_steps=progress.step + lengths.steps_left(progress),
        start_step=progress.step,
        metric=training.task.primary.name,
        shown=training.task.shown,
        mid_epoch=progress.samples > 0 and progress.validated != progress.step,
    )


def _secure(context: RunContext) -> RescuedState | None:
    """See that the last state is written, and say so; where the run's folder does not take it, what became of it."""
    trainer, state = context.trainer, context.training.state
    saver, world = trainer.saver, trainer.world

    def rescued() -> RescuedState | None:
        copy = saver.secure()
        if copy is None:
            return None
        kept = rescue(copy, saver.store, context.describe, earlier=saver.reading, gone=saver.lost_folder())
        if kept.weights is None:
            saver.give_up(state.progress)
        return kept

    if not world.run_on_rank0(lambda: saver.has(state.progress.step)):
        saver.replace_lost(state, evaluated=context.finished)
    left = world.run_on_rank0(rescued)
    for event in saver.finish():
        trainer.callback.on_event(event)
    return left


def _closing_words(result: Result) -> str:
    if result.status == "unsaved":
        return f"step {result.step} is the last, and its result could not be written into {result.folder}"
    if result.status == "stopped":
        return f"stopped after step {result.step}; resume to go on from {result.folder}"
    return f"finished after step {result.step}; step {result.selected_step} was selected"

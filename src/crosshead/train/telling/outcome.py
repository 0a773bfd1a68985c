"""The end of a run: the selected weights, the one look at the test split, and the result."""

import time
from functools import partial
from pathlib import Path
from typing import Literal

import safetensors.torch

from crosshead.data.loading.loader import evaluation_loader
from crosshead.data.sets.common import Splits
from crosshead.recipe.schema import Recipe
from crosshead.train.keeping.checkpoint import CheckpointStore
from crosshead.train.keeping.manifest import Damaged, replace_file, verify
from crosshead.train.keeping.state import TrainState, load_weights
from crosshead.train.loop.evaluate import blank_image, evaluate
from crosshead.train.loop.loop import JudgedTask
from crosshead.train.processes.distributed import World
from crosshead.train.processes.watchdog import Watchdog
from crosshead.train.telling.curves import draw_curves
from crosshead.train.telling.records import EvalRecord, EventRecord, Observer, RunInfo
from crosshead.train.telling.result import RESULT_FILE, Result


def stopped_result(state: TrainState, info: RunInfo, epoch: float, seconds: float) -> Result:
    """What a run that was asked to stop has come to; nothing is tested."""
    progress = state.progress
    step = progress.step if progress.best_step is None else progress.best_step
    return _result("stopped", state, info, epoch, seconds, step, None, progress.best, {})


def finished_result(
    recipe: Recipe,
    splits: Splits,
    task: JudgedTask,
    state: TrainState,
    store: CheckpointStore,
    info: RunInfo,
    observer: Observer,
    world: World,
    watchdog: Watchdog,
    seconds: float,
) -> Result:
    """Load the weights that were best on the validation split into ``state`` and test them, once."""
    step, weights, validation, notes = world.lead(lambda: _select(state, store))
    for note in notes:
        observer.on_event(note)
    test = {}
    if weights is not None:
        tensors = world.lead(lambda: safetensors.torch.load_file(weights))
        load_weights(state.evaluated_model, tensors, str(weights))
    if splits.test is not None:
        started = time.perf_counter()
        loader = evaluation_loader(
            splits.test, recipe.data, splits.info, rank=world.rank, world_size=world.size
        )
        precision = recipe.train.precision
        metrics = evaluate(
            state.evaluated_model,
            loader,
            task.evaluation(),
            images=len(splits.test),
            world=world,
            precision=precision,
            blank=blank_image(state.model, recipe.data),
            beat=partial(watchdog.beat, state.progress.step),
        )
        assert metrics is not None, "nothing was there to stop this evaluation"
        test, spent = metrics, time.perf_counter() - started
        epochs, kind = float(recipe.train.epochs), state.evaluated_weights
        record = EvalRecord(state.progress.step, epochs, "test", kind, test, spent, False)
        observer.on_eval(record)
    return _result("finished", state, info, recipe.train.epochs, seconds, step, weights, validation, test)


def write_result(result: Result, observer: Observer) -> None:
    """``result.json`` and the curves; a disk that is full costs these files, not the run."""
    try:
        replace_file(result.folder / RESULT_FILE, result.to_json().encode())
        draw_curves(result.folder)
    except OSError as error:
        message = f"the result could not be written into {result.folder}: {error.strerror}"
        observer.on_event(EventRecord("log_failed", message, result.step))


def _select(
    state: TrainState, store: CheckpointStore
) -> tuple[int, Path | None, dict[str, float], list[EventRecord]]:
    """The best checkpoint: its step, the file of its weights, its validation metrics."""
    progress = state.progress
    if progress.best_step is None:
        note = EventRecord(
            "damage", "no checkpoint of the best was written: the last step's weights are tested", 0
        )
        return progress.step, None, progress.latest, [note]
    path = store.path(progress.best_step)
    try:
        verify(path)
        return progress.best_step, path / f"{state.evaluated_weights}.safetensors", progress.best, []
    except Damaged as error:
        message = f"the best checkpoint, {path}, cannot be used ({error}): the last step's weights are tested instead"
        note = EventRecord("damage", message, progress.step)
        return progress.step, None, progress.latest, [note]


def _result(
    status: Literal["finished", "stopped"],
    state: TrainState,
    info: RunInfo,
    epoch: float,
    seconds: float,
    step: int,
    weights: Path | None,
    validation: dict[str, float],
    test: dict[str, float],
) -> Result:
    return Result(
        status=status,
        folder=info.folder,
        step=state.progress.step,
        epoch=float(epoch),
        selected_step=step,
        weights=weights,
        validation=validation,
        test=test,
        parameters=info.parameters,
        gmacs=info.gmacs,
        images_per_second=state.clock.images_per_second,
        seconds=seconds,
        bad_steps=state.progress.bad_steps,
        broken_images=len(state.progress.broken),
    )

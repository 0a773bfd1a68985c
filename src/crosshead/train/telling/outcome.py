"""The end of a run: the selected weights, the one look at the test split, and the result."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import safetensors.torch

from crosshead.data.loading.loader import evaluation_loader
from crosshead.data.sets.common import Splits
from crosshead.recipe.schema import Recipe
from crosshead.train.keeping.checkpoint import CheckpointStore
from crosshead.train.keeping.manifest import Damaged, replace_file, verify
from crosshead.train.keeping.rescue import Rescued
from crosshead.train.keeping.saving import RETRY_PAUSES_S
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


def unsaved_result(state: TrainState, info: RunInfo, epoch: float, seconds: float, left: Rescued) -> Result:
    """What is left of a run whose last checkpoint could not be written: the best of what is there."""
    progress, store = state.progress, CheckpointStore(info.folder)
    step, weights = progress.step, left.weights
    validation = {} if weights is None else progress.latest
    if progress.best_step is not None and progress.best_step != left.copy.step:
        step, validation = progress.best_step, progress.best
        weights = store.path(step) / f"{state.evaluated_weights}.safetensors"
    return _result("unsaved", state, info, epoch, seconds, step, weights, validation, {})


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
            splits.test,
            recipe.data,
            splits.info,
            rank=world.rank,
            world_size=world.size,
            policy=splits.broken_policy("test"),
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


def write_result(result: Result, observer: Observer) -> Result:
    """``result.json`` and the curves. Without the first, which is tried more than once, the run is not finished."""
    for pause in (*RETRY_PAUSES_S, None):
        try:
            replace_file(result.folder / RESULT_FILE, result.to_json().encode())
            break
        except OSError as error:
            if pause is None:
                message = (
                    f"the result could not be written into {result.folder}: {error.strerror}. The weights are there; "
                    "make room and resume, which tests them again and writes it"
                )
                observer.on_event(EventRecord("unsaved", message, result.step))
                return replace(result, status="unsaved")
            time.sleep(pause)
    try:
        draw_curves(result.folder)
    except OSError as error:
        message = f"the curves could not be drawn into {result.folder}: {error.strerror}"
        observer.on_event(EventRecord("log_failed", message, result.step))
    return result


def _select(
    state: TrainState, store: CheckpointStore
) -> tuple[int, Path | None, dict[str, float], list[EventRecord]]:
    """The best checkpoint: its step, the file of its weights, its validation metrics. Failing it, the last one."""
    progress = state.progress
    notes: list[EventRecord] = []
    for step, metrics in ((progress.best_step, progress.best), (progress.step, progress.latest)):
        if step is None:
            continue
        path = store.path(step)
        try:
            verify(path)
            return step, path / f"{state.evaluated_weights}.safetensors", metrics, notes
        except Damaged as error:
            message = (
                f"the checkpoint {path} cannot be used ({error}): the last step's weights are tested instead"
            )
            notes.append(EventRecord("damage", message, progress.step))
    return progress.step, None, progress.latest, notes


def _result(
    status: Literal["finished", "stopped", "unsaved"],
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

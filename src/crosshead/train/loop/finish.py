"""The end of a run: the selected weights, the one look at the test split, and the result."""

import contextlib
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import safetensors.torch

from crosshead.tasks import EvalResult
from crosshead.train.checkpoint.rescue import RescuedState
from crosshead.train.checkpoint.saver import RETRY_PAUSES_S
from crosshead.train.checkpoint.state import TrainState, load_weights
from crosshead.train.checkpoint.store import CheckpointStore, judged
from crosshead.train.events import RESULT_FILE, Callback, EvalRecord, EventRecord, Result, RunInfo
from crosshead.train.files import Damaged, replace_file, verify
from crosshead.train.logging.confusion import CONFUSION_FILE, draw_confusion
from crosshead.train.logging.curves import draw_curves
from crosshead.train.loop.devices import peak_memory_mib
from crosshead.train.loop.evaluate import evaluate
from crosshead.train.loop.loaders import EvalSplit
from crosshead.train.loop.trainer import Trainer


def stopped_result(trainer: Trainer, info: RunInfo, seconds: float) -> Result:
    """What a run that was asked to stop has come to; nothing is tested."""
    progress = trainer.state.progress
    step = progress.step if progress.best_step is None else progress.best_step
    return _result(
        "stopped", trainer.state, info, trainer.training.epochs, seconds, step, None, progress.best, {}
    )


def unsaved_result(trainer: Trainer, info: RunInfo, seconds: float, left: RescuedState) -> Result:
    """What is left of a run whose last checkpoint could not be written: the best of what is there."""
    progress, best = trainer.state.progress, trainer.state.progress.best_step
    step, weights = progress.step, left.weights
    validation = progress.latest if best == step and weights is not None else {}
    found = None if best is None or best == left.copy.step else trainer.saver.reading.find(best, judged)
    if best is not None and found is not None:
        step, validation = best, progress.best
        weights = found / f"{trainer.state.evaluated_weights}.safetensors"
    return _result(
        "unsaved", trainer.state, info, trainer.training.epochs, seconds, step, weights, validation, {}
    )


def finished_result(trainer: Trainer, info: RunInfo, seconds: float) -> Result:
    """Load the weights that were best on the validation split into the run's state and test them, once."""
    state = trainer.state
    step, weights, validation, notes = trainer.world.run_on_rank0(lambda: _select(state, trainer.saver.store))
    for note in notes:
        trainer.callback.on_event(note)
    tensors = trainer.world.run_on_rank0(lambda: safetensors.torch.load_file(weights))
    load_weights(state.evaluated_model, tensors, str(weights))
    speed = None
    if trainer.loaders.test is not None:
        started = time.perf_counter()
        judged = _test(trainer, trainer.loaders.test, step)
        if judged is None:
            words = "stopping in the middle of the test, which will be repeated"
            trainer.callback.on_event(EventRecord("signal", words, step, {"name": trainer.stop.name}))
            return stopped_result(trainer, info, seconds)
        speed = trainer.loaders.test.images / (time.perf_counter() - started)
        test, details = judged.metrics, {"split": "test", **judged.details}
    else:
        known = step == state.progress.best_step and state.progress.details
        test, details = {}, {"split": "validation", **state.progress.details} if known else {}
    result = _result(
        "finished", state, info, trainer.training.epochs, seconds, step, weights, validation, test
    )
    peak = peak_memory_mib(next(state.evaluated_model.parameters()).device)
    return replace(result, details=details, test_images_per_second=speed, peak_memory_mib=peak)


def _test(trainer: Trainer, held: EvalSplit, step: int) -> EvalResult | None:
    """What the weights of ``step`` find on the test split, told to the callbacks; None where the run is to stop."""
    started, state = time.perf_counter(), trainer.state
    eval_result = evaluate(
        trainer.task,
        state.evaluated_model,
        held.batches(),
        images=held.images,
        world=trainer.world,
        precision=trainer.recipe.train.precision,
        stopped=lambda: trainer.stop.name is not None,
        beat=partial(trainer.watchdog.beat, state.progress.step),
    )
    if eval_result is None:
        return None
    spent, kind = time.perf_counter() - started, state.evaluated_weights
    epoch = min(trainer.training.epochs, step / trainer.lengths.steps_per_epoch)
    trainer.callback.on_eval(EvalRecord(step, epoch, "test", kind, eval_result.metrics, spent, False))
    if eval_result.fault is not None:
        words = f"the test is no judgement: {eval_result.fault}"
        trainer.callback.on_event(EventRecord("no_judgement", words, step))
    return eval_result


def write_result(result: Result, callback: Callback) -> Result:
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
                callback.on_event(EventRecord("unsaved", message, result.step))
                return replace(result, status="unsaved")
            time.sleep(pause)
    try:
        draw_curves(result.folder)
        if "confusion" in result.details:
            draw_confusion(result.details, result.folder / CONFUSION_FILE)
    except Exception as error:  # whatever a library for pictures has: the run is finished without them too
        why = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        message = f"the curves could not be drawn into {result.folder}: {why}"
        callback.on_event(EventRecord("log_failed", message, result.step))
    return result


def result_of(store: CheckpointStore, step: int) -> Result | None:
    """The result of the run that ended at ``step``; None where there is none, or its weights are gone."""
    try:
        result = Result.load(store.run_folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or a damaged one
        return None
    if result.weights is None or not result.weights.is_file():
        return None
    return result if result.step == step and store.find(result.selected_step, judged) is not None else None


def set_result_aside(folder: Path, step: int) -> list[EventRecord]:
    """A run that goes on from ``step`` is not finished any more: its result is renamed; what to say about it."""
    old = folder / RESULT_FILE
    if not old.exists():
        return []
    aside = old.with_name(f"{old.stem}.before-step-{step + 1}{old.suffix}")
    os.replace(old, aside)
    return [
        EventRecord("note", f"{RESULT_FILE} is of an earlier end of this run: it is {aside.name} now", step)
    ]


def _select(
    state: TrainState, store: CheckpointStore
) -> tuple[int, Path, dict[str, float], list[EventRecord]]:
    """The best checkpoint: its step, the file of its weights, its validation metrics. Failing it, the last one.

    Raises:
        OSError: neither is there any more.
    """
    progress = state.progress
    notes: list[EventRecord] = []
    for step, metrics in ((progress.best_step, progress.best), (progress.step, progress.latest)):
        if step is None:
            continue
        with contextlib.suppress(OSError):  # it is found where it lies
            store.put_back(step)
        found, path = store.find(step, judged), store.path(step)
        try:
            if found is None:
                verify(path, judged)  # says why; or a disk had a bad moment, and it is whole
            return step, (found or path) / f"{state.evaluated_weights}.safetensors", metrics, notes
        except Damaged as error:
            message = (
                f"the checkpoint {path} cannot be used ({error}): the last step's weights are tested instead"
            )
            notes.append(EventRecord("damage", message, progress.step))
    raise OSError(
        f"no checkpoint in {store.folder} can be used any more, so that nothing can be selected: "
        f"{notes[-1].message}. Resume {store.run_folder}, which goes on from what is left"
    )


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
        metric=info.metric,
        shown=info.shown,
    )

"""Where a run starts: at the beginning, or at a checkpoint."""

import contextlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from crosshead.data.datasets.fingerprint import describe_changes
from crosshead.recipe.schema import Recipe
from crosshead.train.checkpoint.store import (
    BEST,
    CheckpointStore,
    Damage,
    read_state,
    read_tensors,
    run_of,
    step_in,
    step_of,
)
from crosshead.train.events import EventRecord
from crosshead.train.files import MANIFEST, Damaged, verify
from crosshead.train.run_folder.folder import (
    CHECKPOINTS_FOLDER,
    RECIPE_FILE,
    check_classes,
    free_folders,
    holds_run,
    last_folder,
    make_writable,
    restarts,
)
from crosshead.train.run_folder.lock import FolderBusy, FolderLock, is_held

# Sections and keys that say where and how a run is done, and not what it computes.
_HARMLESS = {
    "name", "base", "notes", "output", "log", "checkpoint", "data.root", "data.num_workers", "data.eval_batch_size",
    "train.device", "train.rank_timeout_s", "train.max_bad_steps", "train.teacher.run", "train.teacher.weights",
}  # fmt: skip
_FIRST_WEIGHTS = {"model.init_from", "model.args.pretrained"}  # a checkpoint has others


@dataclass(frozen=True)
class Start:
    """A checkpoint's content, or nothing; what the log should say about it, and the damaged ones that are newer."""

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    events: list[EventRecord] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    path: Path | None = None


Best = tuple[int | None, dict[str, float]]  # the step and its metrics


def claim_folder(
    recipe: Recipe, folder: Path | None, resume: Path | bool
) -> tuple[FolderLock, Path, Path | bool]:
    """The run's folder, locked and known to be writable, and what to resume from.

    Where nothing names a folder it is the first free one; one that another run takes first is passed over.

    Raises:
        ValueError: there is a run in the folder and nothing was said of resuming it, or it can't be written.
        FolderBusy: another run is at work there.
    """
    resolved, start = _resolve_folder(recipe, folder, resume)
    if resolved is not None:
        return _locked(resolved), resolved, start
    for free in free_folders(recipe):
        try:
            lock = _locked(free)
        except FolderBusy:
            continue
        if not holds_run(free):
            return lock, free, start
        lock.release()  # a short run has come and gone since this folder was free
    raise AssertionError("the numbers of folders have no end")


def own_folder(recipe: Recipe, folder: Path | None, resume: Path | bool) -> Path | None:
    """The folder of the run that is gone on with, if it is one and says what it was."""
    if resume is False and not restarts():
        return None
    resolved, start = _resolve_folder(recipe, folder, resume)
    named = start if isinstance(start, Path) else None
    source = run_of(named) if named is not None and os.path.exists(named / MANIFEST) else named
    return next((each for each in (source, resolved) if each and os.path.isfile(each / RECIPE_FILE)), None)


def _locked(folder: Path) -> FolderLock:
    fresh = not os.path.exists(folder)  # what can't be asked is refused as what can't be written
    make_writable(folder)
    lock = FolderLock(folder, fresh=fresh)
    lock.acquire()
    return lock


def _resolve_folder(
    recipe: Recipe, folder: Path | None, resume: Path | bool
) -> tuple[Path | None, Path | bool]:
    """The folder, None where any free one will do, and what to resume from, torchrun's restarts included."""
    if isinstance(resume, Path):
        if not resume.exists():
            raise ValueError(
                f"nothing to resume at {resume}: no such folder; name a run folder or a checkpoint in one"
            )
        names_checkpoint = (resume / MANIFEST).exists()
        run = run_of(resume) if names_checkpoint else resume
        newest_of_this_run = not names_checkpoint and folder in (None, run)
        return folder or run, True if newest_of_this_run else resume
    resume = resume or restarts() > 0
    if folder is None:
        return (last_folder(recipe) if resume else None), resume
    if not resume and holds_run(folder):
        if owner := is_held(folder):
            raise FolderBusy(f"{folder} is in use by {owner}; wait for it, stop it, or choose another folder")
        raise ValueError(
            f"{folder} holds a run already; resume it (--resume), or choose another folder or name"
        )
    return folder, resume


def find_start(store: CheckpointStore, resume: Path | bool) -> Start:
    """The checkpoint to go on from. Finishes or undoes what a killed writer left, and changes nothing else.

    Raises:
        ValueError: the checkpoint that was named is damaged.
    """
    store.recover()
    if resume is False:
        return Start()
    if isinstance(resume, Path):
        return _named_start(resume)
    path, damages = store.newest_good()
    if path is None:
        note = EventRecord("resume", f"no checkpoint in {store.run_folder}: starting from the beginning", 0)
        return Start(events=[note], damages=damages)
    return replace(_read(path), damages=damages)


def _named_start(path: Path) -> Start:
    if not (path / MANIFEST).exists():  # another run's folder: its newest, which stays as it is
        found, _ = CheckpointStore(path).newest_good()
        if found is None:
            raise ValueError(
                f"no whole checkpoint below {path / CHECKPOINTS_FOLDER}; `crosshead doctor` tells more"
            )
        return _read(found.resolve())
    try:
        verify(path)
    except Damaged as error:
        raise ValueError(
            f"{path} is damaged: {error}; resume the run folder to use its newest good one"
        ) from None
    return _read(path.resolve())


def resolve_start(store: CheckpointStore, start: Start) -> tuple[list[EventRecord], Best]:
    """Make the folder fit ``start``, once nothing speaks against going on from it; what to say, and what is best.

    Damaged checkpoints and those of another future are renamed, and the best one is brought along.
    """
    store.set_aside(start.damages)
    events = [
        EventRecord(
            "damage", f"{damage.path} is damaged and was set aside: {damage.reason}", step_of(damage.path)
        )
        for damage in start.damages
    ]
    if start.path is None:
        return [*events, *start.events], (None, {})
    step, path = start.state["progress"]["step"], start.path
    if run_of(path) == store.run_folder.resolve() and (later := store.abandon_after(step)):
        message = f"going back to step {step}: later checkpoints {later} are renamed to *.abandoned"
        events.append(EventRecord("note", message, step))
    best, notes = _best(store, start)
    return [*events, *start.events, *notes], best


def _best(store: CheckpointStore, start: Start) -> tuple[Best, list[EventRecord]]:
    """The best checkpoint so far, in this folder; none where it is not there any more, so that a later one can be."""
    assert start.path is not None
    progress = start.state["progress"]
    step, metrics = progress["best_step"], progress["best"]
    if step is None:
        return (None, {}), []
    if start.path == store.path(step).resolve():  # read a moment ago, whole
        with contextlib.suppress(OSError):
            if step_in(store.run_folder / BEST) != step:
                store.point_best(step)
        return (step, metrics), []
    found = CheckpointStore(run_of(start.path)).find(step)
    try:
        if found is None:
            verify(store.path(step))  # says why; or a disk had a bad moment, and it is whole
        elif found.resolve() != store.path(step).resolve():
            store.adopt(found, step)
        if step_in(store.run_folder / BEST) != step:
            with contextlib.suppress(OSError):  # a kill came between the two; the next tidying tries again
                store.point_best(step)
        return (step, metrics), []
    except (Damaged, OSError) as error:
        path = store.path(step)
        message = (
            f"the best checkpoint, {path}, cannot be used ({error}): the best is chosen anew from here on"
        )
        return (None, {}), [EventRecord("damage", message, progress["step"])]


def _read(path: Path) -> Start:
    try:
        state, tensors = read_state(path), read_tensors(path)
        progress = state["progress"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is whole, yet no checkpoint of this program: {error}") from error
    message = (
        f"resumed from {path}: step {progress['step']}, epoch {progress['epoch'] + 1}, "
        f"{progress['samples']} of its images seen"
    )
    return Start(tensors, state, [EventRecord("resume", message, progress["step"])], path=path.resolve())


def compare(state: dict[str, Any], context: dict[str, Any]) -> list[EventRecord]:
    """What is not as it was when the checkpoint was written.

    Raises:
        ValueError: the checkpoint is of another model or optimizer, keeps an average where none is expected or the
            other way round, has learned other classes, or was validated on pictures that would now be trained on.
    """
    check_classes(context["classes"], state["classes"])
    before, now = _recipe_of(state), _recipe_of(context)
    changed = {
        key: (before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not _is_harmless(key)
    }
    listed = "; ".join(f"{key} was {old!r}, is {new!r}" for key, (old, new) in changed.items())
    _refuse(changed, listed, context)
    step, events = state["progress"]["step"], []
    if changed:
        message = f"the recipe has changed, so this is not the same run any more: {listed}"
        events.append(EventRecord("recipe_changed", message, step, {"keys": list(changed)}))
    if state["data"] is not None and (words := describe_changes(state["data"], context["data"])):
        message = (
            f"the data has changed: {words}. The weights go on, the order of the pictures is new, and the best so "
            "far was chosen on the validation pictures of then"
        )
        events.append(EventRecord("data_changed", message, step))
    before_it, now_it = state.get("teacher"), context.get("teacher")
    if before_it is not None and now_it is not None and before_it != now_it:
        message = (
            f"the teacher has changed: its weights were sha256 {before_it[:16]}, are {now_it[:16]}, so this is not the "
            "same run any more"
        )
        events.append(EventRecord("teacher_changed", message, step))
    if state["processes"] != context["processes"]:
        message = (
            f"{context['processes']} processes instead of {state['processes']}: weights and optimizer go on, the "
            "order of the data and of random numbers is new"
        )
        events.append(EventRecord("world_changed", message, step))
    return events


def _refuse(changed: dict[str, tuple[Any, Any]], listed: str, context: dict[str, Any]) -> None:
    if any(key.startswith("model.") and key not in _FIRST_WEIGHTS for key in changed):
        raise ValueError(f"the checkpoint is of another model: {listed}. Resume with the recipe of its run")
    remedy = "or start a new run from its weights (model.init_from=FILE)"
    if "optimizer.name" in changed:
        old, new = changed["optimizer.name"]
        raise ValueError(
            f"the checkpoint has the state of {old}, which is none for {new}; resume with optimizer.name={old}, "
            f"{remedy}"
        )
    old, new = changed.get("train.ema_decay", (0, 0))
    if (old is None) != (new is None):
        kept = "keeps no average of its weights" if old is None else "keeps an average of its weights"
        value = "null" if old is None else old
        raise ValueError(f"the checkpoint {kept}; resume with train.ema_decay={value}, {remedy}")
    for key in ("data.split_seed", "data.validation", "data.groups", "data.folds", "data.fold"):
        if key in changed and (context["held_out"] or "fold" in key):
            raise ValueError(
                f"{key} was {changed[key][0]}, is {changed[key][1]}: the run would be trained on pictures that it is "
                f"{'judged' if 'fold' in key else 'validated'} on; resume with {key}={changed[key][0]}"
            )


def _recipe_of(context: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's recipe by dotted key, as it is meant today: keys that are newer have their defaults, and the
    split has its seed, which was the run's before it had one of its own."""
    try:
        recipe = Recipe.model_validate_json(json.dumps(context["recipe"]))
    except ValidationError:  # of a version that knew other keys
        return _flatten(context["recipe"])
    return _flatten(recipe.model_dump(mode="json")) | {"data.split_seed": recipe.split_seed}


def _is_harmless(key: str) -> bool:
    return key in _HARMLESS or key.split(".")[0] in _HARMLESS


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

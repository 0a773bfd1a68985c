"""Where a run starts: at the beginning, or at a checkpoint."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from crosshead.recipe.schema import Recipe
from crosshead.train.keeping import checkpoint
from crosshead.train.keeping.checkpoint import CheckpointStore, read_state, read_tensors, step_of
from crosshead.train.keeping.folder import (
    check_classes,
    free_folders,
    holds_run,
    last_folder,
    make_writable,
    restarts,
)
from crosshead.train.keeping.lock import FolderBusy, FolderLock, is_held
from crosshead.train.keeping.manifest import MANIFEST, Damaged, verify
from crosshead.train.telling.records import EventRecord

# Sections and keys that say where and how a run is done, and not what it computes.
_HARMLESS = {
    "name", "base", "notes", "output", "log", "checkpoint", "data.root", "data.num_workers", "data.eval_batch_size",
    "train.device", "train.rank_timeout_s", "train.max_bad_steps",
}  # fmt: skip
_FIRST_WEIGHTS = {"model.init_from", "model.args.pretrained"}  # a checkpoint has others


@dataclass(frozen=True)
class Start:
    """A checkpoint's content, or nothing; and what the log should say about it."""

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    events: list[EventRecord] = field(default_factory=list)


def claim_folder(
    recipe: Recipe, folder: Path | None, resume: Path | bool
) -> tuple[FolderLock, Path, Path | bool]:
    """The run's folder, locked and known to be writable, and what to resume from.

    Where nothing names a folder it is the first free one; one that another run takes first is passed over.

    Raises:
        ValueError: there is a run in the folder and nothing was said of resuming it, or it can't be written.
        FolderBusy: another run is at work there.
    """
    settled, start = _settle(recipe, folder, resume)
    if settled is not None:
        return _locked(settled), settled, start
    for free in free_folders(recipe):
        try:
            lock = _locked(free)
        except FolderBusy:
            continue
        if not holds_run(free):
            return lock, free, start
        lock.release()  # a short run has come and gone since this folder was free
    raise AssertionError("the numbers of folders have no end")


def _locked(folder: Path) -> FolderLock:
    make_writable(folder)
    lock = FolderLock(folder)
    lock.acquire()
    return lock


def _settle(recipe: Recipe, folder: Path | None, resume: Path | bool) -> tuple[Path | None, Path | bool]:
    """The folder, None where any free one will do, and what to resume from, torchrun's restarts included."""
    if isinstance(resume, Path):
        if not resume.exists():
            raise ValueError(
                f"nothing to resume at {resume}: no such folder; name a run folder or a checkpoint in one"
            )
        names_checkpoint = (resume / MANIFEST).exists()
        run = resume.resolve().parent.parent if names_checkpoint else resume
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
    """Tidy up after a killed writer and read the checkpoint to go on from.

    Raises:
        ValueError: the checkpoint that was named is damaged.
    """
    store.recover()
    if resume is False:
        return Start()
    if isinstance(resume, Path):
        return _named_start(store, resume)
    path, damages = store.newest_good()
    store.set_aside(damages)
    events = [
        EventRecord(
            "damage", f"{damage.path} is damaged and was set aside: {damage.reason}", step_of(damage.path)
        )
        for damage in damages
    ]
    if path is None:
        note = EventRecord("resume", f"no checkpoint in {store.run_folder}: starting from the beginning", 0)
        return Start(events=[*events, note])
    return _with_best(_read(path, events), store)


def _named_start(store: CheckpointStore, path: Path) -> Start:
    if not (path / MANIFEST).exists():  # another run's folder: its newest, which stays as it is
        found, _ = CheckpointStore(path).newest_good()
        if found is None:
            raise ValueError(
                f"no whole checkpoint below {path / checkpoint.FOLDER}; `crosshead doctor` tells more"
            )
        path = found
    try:
        verify(path)
    except Damaged as error:
        raise ValueError(
            f"{path} is damaged: {error}; resume the run folder to use its newest good one"
        ) from None
    events = []
    path = path.resolve()
    if path.parent == store.folder.resolve() and (later := store.abandon_after(step_of(path))):
        message = f"going back to step {step_of(path)}: later checkpoints {later} are renamed to *.abandoned"
        events.append(EventRecord("note", message, step_of(path)))
    start = _read(path, events)
    best_step = start.state["progress"]["best_step"]
    if path.parent != store.folder.resolve() and best_step is not None:
        with suppress(Damaged):
            store.adopt(path.with_name(store.path(best_step).name))
    return _with_best(start, store)


def _with_best(start: Start, store: CheckpointStore) -> Start:
    """Forget a best checkpoint that is not there any more, so that a later one can be the best."""
    progress = start.state["progress"]
    if progress["best_step"] is None:
        return start
    path = store.path(progress["best_step"])
    try:
        verify(path)
        return start
    except Damaged as error:
        message = (
            f"the best checkpoint, {path}, cannot be used ({error}): the best is chosen anew from here on"
        )
        progress["best_step"], progress["best"] = None, {}
        return replace(start, events=[*start.events, EventRecord("damage", message, progress["step"])])


def _read(path: Path, events: list[EventRecord]) -> Start:
    try:
        state, tensors = read_state(path), read_tensors(path)
        progress = state["progress"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is whole, yet no checkpoint of this program: {error}") from error
    message = (
        f"resumed from {path}: step {progress['step']}, epoch {progress['epoch'] + 1}, "
        f"{progress['samples']} of its images seen"
    )
    return Start(tensors, state, [*events, EventRecord("resume", message, progress["step"])])


def compare(state: dict[str, Any], context: dict[str, Any]) -> list[EventRecord]:
    """What is not as it was when the checkpoint was written.

    Raises:
        ValueError: the checkpoint is of another model, or has learned other classes.
    """
    check_classes(context["classes"], state["classes"])
    before, now = _flatten(state["recipe"]), _flatten(context["recipe"])
    changed = {
        key: (before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not _is_harmless(key)
    }
    listed = "; ".join(f"{key} was {old!r}, is {new!r}" for key, (old, new) in changed.items())
    if any(key.startswith("model.") and key not in _FIRST_WEIGHTS for key in changed):
        raise ValueError(f"the checkpoint is of another model: {listed}. Resume with the recipe of its run")
    step, events = state["progress"]["step"], []
    if changed:
        message = f"the recipe has changed, so this is not the same run any more: {listed}"
        events.append(EventRecord("recipe_changed", message, step, {"keys": list(changed)}))
    if state["processes"] != context["processes"]:
        message = (
            f"{context['processes']} processes instead of {state['processes']}: weights and optimizer go on, the "
            "order of the data and of random numbers is new"
        )
        events.append(EventRecord("world_changed", message, step))
    return events


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

"""The checkpoints of a run.

    checkpoints/step-00001234/   model, ema, optimizer (safetensors), state.json, manifest.json
    best -> checkpoints/step-... the best on the validation split

A checkpoint is written under another name, flushed, read back and renamed, so that a ``step-`` folder is whole
from the moment at which it is there. Nothing in it is pickled, so reading one runs no code.
"""

import contextlib
import json
import os
import re
import shutil
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from crosshead.files import read_json
from crosshead.formats import numbered, older_state, read_numbered
from crosshead.train.checkpoint.state import EMA, MODEL
from crosshead.train.files import Damaged, Wanted, flush_folder, verify, write_file, write_manifest
from crosshead.train.run_folder.folder import CHECKPOINTS_FOLDER

BEST, STATE = "best", "state.json"
_ASIDE, _DELETING = ".writing-", ".deleting-"
_REPLACED, _DAMAGED, _ABANDONED = ".replaced", ".damaged", ".abandoned"


@dataclass(frozen=True)
class Damage:
    """A checkpoint that cannot be used, and why."""

    path: Path
    reason: str


class CheckpointStore:
    """Reads and writes the checkpoints below ``run_folder``. One writer at a time; the folder's lock sees to it."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self.folder = run_folder / CHECKPOINTS_FOLDER

    def path(self, step: int) -> Path:
        """Where the checkpoint of ``step`` lies, or would lie: beside its place where replacing it was broken off."""
        place = self._place(step)
        replaced = _replaced(place)
        return replaced if os.path.lexists(replaced) and not os.path.lexists(place) else place

    def _place(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def is_there(self, step: int) -> bool | None:
        """Whether ``step`` has a checkpoint, whole or not; None where the folder can't be looked into now."""
        try:
            return stat.S_ISDIR(os.stat(self.path(step)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return None

    def steps(self) -> list[int]:
        """Every step that has a checkpoint, whole or not, in order."""
        names = (path.name.removesuffix(_REPLACED) for path in self.folder.glob("step-*"))
        numbers = (re.fullmatch(r"step-([0-9]+)", name) for name in names)
        steps = sorted({int(number[1]) for number in numbers if number})
        return [
            step for step in steps if os.path.lexists(self.path(step))
        ]  # step-1 is a name of someone else's

    def write(self, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> Path:
        """Write a checkpoint, replacing one of the same step.

        Raises:
            OSError, Damaged: it could not be written or did not read back; what was there before still is.
        """
        target, aside = self._place(step), self.folder / f"{_ASIDE}{step:08d}"
        self.folder.mkdir(exist_ok=True)
        _delete(aside)
        try:
            aside.mkdir()
            digests = {
                f"{name}.safetensors": write_file(aside / f"{name}.safetensors", safetensors.torch.save(each))
                for name, each in tensors.items()
            }
            digests[STATE] = write_file(aside / STATE, json.dumps(numbered(state), indent=1).encode())
            write_manifest(aside, digests)
            verify(aside)
            flush_folder(aside)
        except BaseException:
            with contextlib.suppress(OSError):
                _delete(aside)
            raise
        self._put(aside, target)
        return target

    def _put(self, aside: Path, target: Path) -> None:
        replaced = _replaced(target)
        if os.path.lexists(target):
            _delete(replaced)  # where deleting it failed before
            os.rename(target, replaced)
        try:
            os.rename(aside, target)
        except OSError:
            with contextlib.suppress(OSError):  # where that fails too, it is found beside its place
                _put_back(target)
            raise
        flush_folder(self.folder)
        with contextlib.suppress(OSError):
            _delete(replaced)

    def put_back(self, step: int) -> None:
        """Undo a replacement of the checkpoint of ``step`` that was broken off. Raises OSError where it can't be."""
        _put_back(self._place(step))

    def recover(self) -> None:
        """Finish or undo what a killed writer left behind."""
        for replaced in self.folder.glob(f"step-*{_REPLACED}"):
            target = replaced.with_name(replaced.name.removesuffix(_REPLACED))
            _put_back(target)
            _delete(replaced)
        for leftover in (*self.folder.glob(f"{_ASIDE}*"), *self.folder.glob(f"{_DELETING}*")):
            _delete(leftover)

    def newest_good(self, wanted: Wanted | None = None) -> tuple[Path | None, list[Damage]]:
        """The newest checkpoint that is whole, in those files that are ``wanted`` or in all, and the damaged ones that
        are newer. Changes nothing."""
        damages: list[Damage] = []
        for step in reversed(self.steps()):
            try:
                verify(self.path(step), wanted)
                return self.path(step), damages
            except Damaged as error:
                damages.append(Damage(self.path(step), str(error)))
        return None, damages

    def set_aside(self, damages: list[Damage]) -> None:
        """Rename damaged checkpoints, so that they are kept for a look and never counted as checkpoints."""
        for damage in damages:
            _rename_free(damage.path, _DAMAGED)

    def abandon_after(self, step: int) -> list[int]:
        """Rename the checkpoints after ``step``: training goes back there, and they are of another future."""
        later = [each for each in self.steps() if each > step]
        for each in later:
            _rename_free(self.path(each), _ABANDONED)
        return later

    def adopt(self, path: Path, step: int) -> None:
        """Take a copy of another run's checkpoint of ``step``. Raises ``Damaged`` where the copy is not whole."""
        aside = self.folder / f"{_ASIDE}{step:08d}"
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(path, aside)
        try:
            verify(aside)
        except Damaged:
            _delete(aside)
            raise
        self._put(aside, self._place(step))

    def prune(self, keep_last: int, best_step: int | None) -> None:
        """Delete all but the newest ``keep_last`` and the best, and what a failed deletion left."""
        for step in self.steps()[:-keep_last]:
            if step != best_step:
                os.rename(self.path(step), self.folder / f"{_DELETING}{step:08d}")
        for going in self.folder.glob(f"{_DELETING}*"):
            _delete(going)

    def point_best(self, step: int) -> None:
        """Let ``best`` be the checkpoint of ``step``, in one rename.

        It may be a folder, in a copy of a run whose links were followed: that one is put out of the way.
        """
        link, aside = self.run_folder / BEST, self.run_folder / f".{BEST}.tmp"
        aside.unlink(missing_ok=True)
        aside.symlink_to(self.path(step).relative_to(self.run_folder), target_is_directory=True)
        if link.is_dir() and not link.is_symlink():
            self.folder.mkdir(exist_ok=True)
            os.rename(link, self.folder / f"{_DELETING}{BEST}")  # the next pruning deletes it
        os.replace(aside, link)

    def find(self, step: int, wanted: Wanted | None = None) -> Path | None:
        """The checkpoint of ``step``, whole in what is ``wanted``: in its place, or as the ``best`` of a copied run."""
        for path in (self.path(step), self.run_folder / BEST):
            if step_in(path) == step and _is_whole(path, wanted):
                return path
        return None

    def best_step(self) -> int | None:
        """The step of the best checkpoint, as the newest one has it. It knows, whatever became of the link ``best``:
        copies follow it or leave it out. Without a checkpoint whose state is whole, what is in ``best`` says."""
        newest, _ = self.newest_good(counts)
        if newest is None:
            return step_in(self.run_folder / BEST)
        return read_state(newest)["progress"]["best_step"]


def counts(listed: Collection[str]) -> list[str]:
    """Of a checkpoint's files the one without tensors."""
    return [STATE]


def judged(listed: Collection[str]) -> list[str]:
    """Of a checkpoint's files those that evaluating and predicting read: the averaged weights where it has any."""
    average = f"{EMA}.safetensors"
    return [STATE, average if average in listed else f"{MODEL}.safetensors"]


def run_of(path: Path) -> Path:
    """The folder of the run whose checkpoint lies at ``path``."""
    path = path.resolve()
    return path.parent if path.name == BEST else path.parent.parent


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-").removesuffix(_REPLACED))


def _replaced(place: Path) -> Path:
    return place.with_name(place.name + _REPLACED)


def _put_back(place: Path) -> None:
    replaced = _replaced(place)
    if os.path.lexists(replaced) and not os.path.lexists(place):
        os.rename(replaced, place)


def read_state(path: Path) -> dict[str, Any]:
    return read_numbered(read_json(path / STATE), path / STATE, older_state)


def step_in(path: Path) -> int | None:
    """The step of the checkpoint that lies at ``path``, whatever it is called."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return read_state(path)["progress"]["step"]
    return None


def _is_whole(path: Path, wanted: Wanted | None) -> bool:
    try:
        verify(path, wanted)
    except Damaged:
        return False
    return True


def read_tensors(path: Path) -> dict[str, dict[str, Tensor]]:
    """All tensors of a checkpoint, by file."""
    return {file.stem: safetensors.torch.load_file(file) for file in sorted(path.glob("*.safetensors"))}


def _delete(path: Path) -> None:
    """A folder with all that is in it, or whatever else has taken its name; nothing where nothing is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _rename_free(path: Path, suffix: str) -> None:
    target, number = path.with_name(path.name + suffix), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}{suffix}-{number}")
    os.rename(path, target)

"""The last state of a run whose folder takes no checkpoint any more, kept wherever there is room."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch

from crosshead.train.checkpoint.saver import Copy
from crosshead.train.checkpoint.state import EMA, MODEL
from crosshead.train.checkpoint.store import CheckpointStore
from crosshead.train.events import EventRecord
from crosshead.train.files import Damaged, write_file


@dataclass(frozen=True)
class RescuedState:
    """``folder`` holds a whole run of one checkpoint, and perhaps the best; or nothing but ``weights``; or is None.
    ``gone`` says what became of the run's own folder, where that is why."""

    copy: Copy
    folder: Path | None = None
    weights: Path | None = None
    gone: str | None = None

    def event(self, store: CheckpointStore) -> EventRecord:
        """What to say: what could not be written, where it is now, and what to do."""
        run, step, written = store.run_folder, self.copy.step, store.steps()
        went = f"after step {written[-1]}" if written else "from the beginning"
        message = f"the last checkpoint, of step {step}, could not be written into {run}"
        if self.gone is not None:
            message = f"{self.gone}, so that the last checkpoint, of step {step}, could not be written there"
            message += self._instead()
        elif self.folder is None:
            message += (
                f" nor anywhere else: what was learned {went} is lost. Make room and resume {run}, which goes on "
                "from there"
            )
        elif self.weights is not None and self.weights.parent == self.folder:
            message += (
                f": its weights alone are kept in {self.weights} (model.init_from takes them). Make room and resume "
                f"{run}, which goes on {went}"
            )
        else:
            kept = CheckpointStore(self.folder).path(step)
            message += (
                f": it is kept whole in {self.folder}. Make room, move {kept} to {store.folder}{os.sep} and resume "
                f"{run}; or resume {self.folder}, a run of its own"
            )
        details = {"folder": _text(self.folder), "weights": _text(self.weights)}
        return EventRecord("unsaved", message, step, details)

    def _instead(self) -> str:
        if self.folder is None:
            return " nor anywhere else: what was learned since the one before is lost"
        if self.weights is not None and self.weights.parent == self.folder:
            return f": its weights alone are kept in {self.weights} (model.init_from takes them)"
        return f": it is kept whole in {self.folder}, a run of its own that can be resumed"


def rescue(
    copy: Copy,
    store: CheckpointStore,
    describe: Callable[[Path], None],
    *,
    earlier: CheckpointStore,
    gone: str | None = None,
) -> RescuedState:
    """Write ``copy`` as a run of its own into the first place that takes it; failing that, its weights.

    ``describe`` puts what a run folder holds beside checkpoints into a folder; ``earlier`` has the best; ``gone`` is
    what became of the run's folder.
    """
    for keep in (_keep_whole, _keep_weights):
        for place in places(store.run_folder):
            folder = None
            try:
                folder = Path(tempfile.mkdtemp(prefix=f"{store.run_folder.name}-kept-", dir=place))
                weights = keep(copy, folder)
            except (OSError, Damaged, MemoryError):
                if folder is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            with contextlib.suppress(OSError, Damaged):
                describe(folder)
                _take_best_along(copy, earlier, folder)
            return RescuedState(copy, folder, weights, gone)
    return RescuedState(copy, gone=gone)


def places(run_folder: Path) -> list[Path]:
    """Where to try: beside the run, the system's folder for temporary files, memory."""
    found = [run_folder.resolve().parent]
    with contextlib.suppress(OSError):
        found.append(Path(tempfile.gettempdir()))
    return [*found, Path("/dev/shm")]


def _keep_whole(copy: Copy, folder: Path) -> Path:
    path = CheckpointStore(folder).write(copy.step, copy.tensors, copy.values)
    return path / f"{_kind(copy)}.safetensors"


def _keep_weights(copy: Copy, folder: Path) -> Path:
    path = folder / "weights.safetensors"
    write_file(path, safetensors.torch.save(copy.tensors[_kind(copy)]))
    return path


def _kind(copy: Copy) -> str:
    return EMA if EMA in copy.tensors else MODEL


def _take_best_along(copy: Copy, store: CheckpointStore, folder: Path) -> None:
    target = CheckpointStore(folder)
    if copy.best_step is None or not target.steps():
        return
    if copy.best_step != copy.step:
        target.adopt(store.find(copy.best_step) or store.path(copy.best_step), copy.best_step)
    target.point_best(copy.best_step)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)

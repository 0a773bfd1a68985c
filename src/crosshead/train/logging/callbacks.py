"""Who watches a run: the logs on disk, what the recipe names, the caller; and in TensorBoard validation pictures, with
what the model says drawn onto them."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import Image
from torch import nn

from crosshead.data.base import ImageSet
from crosshead.data.decode.images import BrokenImage
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Drawing, Task
from crosshead.train.events import Callback, EndRecord, EvalRecord, EventRecord, RunInfo, StepRecord
from crosshead.train.logging.log_files import JsonLines, TensorBoard
from crosshead.train.logging.services import guarded, named_callbacks

MOST = 4
_LONGEST_SIDE = 640  # pixels: they are to be looked at, not measured
_TOP = 100  # answers a picture, of a task that has several

Drawn = tuple[str, Image.Image]


def pictures_of(task: Task, images: ImageSet, model: nn.Module) -> Iterator[Drawn]:
    """The name and the drawing of up to ``MOST`` of ``images``, the same at every call, spread over all of them.

    ``model`` is left in the mode in which it was, and random numbers to others.
    """
    assert isinstance(task, Drawing)
    chosen = sorted({place * len(images) // MOST for place in range(MOST)}) if len(images) else []
    was_training = model.training
    with torch.random.fork_rng():
        model.eval()
        try:
            for i in chosen:
                try:
                    picture = images.load(i)
                except BrokenImage:  # the evaluation has named it
                    continue
                (answer,) = task.predictions_of(model, [task.preprocess(picture)], top=_TOP)
                drawn = task.draw(picture, answer)["drawn"].convert("RGB")
                drawn.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
                yield f"{i} {PurePath(images.name(i)).name}", drawn
        finally:
            model.train(was_training)


class Pictures:
    """A callback that has pictures drawn after every validation, and hands them to TensorBoard."""

    def __init__(self, board: TensorBoard, draw: Callable[[], Iterator[Drawn]]) -> None:
        self._board, self._draw = board, draw

    def on_start(self, info: RunInfo) -> None:
        """Nothing was said yet."""

    def on_step(self, record: StepRecord) -> None:
        """Pictures are of evaluations."""

    def on_eval(self, record: EvalRecord) -> None:
        if record.split == "validation":
            for name, picture in self._draw():
                self._board.add_picture(f"{record.split}/{name}", np.asarray(picture), record.step)

    def on_event(self, record: EventRecord) -> None:
        """Events have no pictures."""

    def on_end(self, record: EndRecord) -> None:
        """TensorBoard closes its file itself."""


class CallbackList:
    """Hands every record to all callbacks. One that cannot write is reported, once in a run, and asked again next
    time."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._callbacks = list(callbacks)
        self._failed: set[int] = set()

    def on_start(self, info: RunInfo) -> None:
        self._tell(lambda each: each.on_start(info), info.start_step)

    def on_step(self, record: StepRecord) -> None:
        self._tell(lambda each: each.on_step(record), record.step)

    def on_eval(self, record: EvalRecord) -> None:
        self._tell(lambda each: each.on_eval(record), record.step)

    def on_event(self, record: EventRecord) -> None:
        self._tell(lambda each: each.on_event(record), record.step)

    def on_end(self, record: EndRecord) -> None:
        self._tell(lambda each: each.on_end(record), -1)

    def _tell(self, call: Callable[[Callback], None], step: int) -> None:
        for place, callback in enumerate(self._callbacks):
            try:
                call(callback)
            except OSError as error:
                if place not in self._failed:
                    self._failed.add(place)
                    self._report(type(callback).__name__, error, step)

    def _report(self, name: str, error: OSError, step: int) -> None:
        message = f"the log {name} could not be written ({error}); training goes on without it until it can"
        with contextlib.suppress(OSError):  # of a terminal that is gone
            print(message, file=sys.stderr, flush=True)
        self.on_event(EventRecord("log_failed", message, step))


def build_callbacks(
    folder: Path,
    recipe: Recipe,
    callback: Callback | None,
    task: Task,
    validation: ImageSet,
    model: Callable[[], nn.Module] | None,
) -> CallbackList:
    """All callbacks of a run, for rank 0. TensorBoard gets pictures where the task draws and ``model``, the one
    to evaluate, is given: it is not where a process holds only a part of it."""
    log = recipe.log
    callbacks: list[Callback] = [JsonLines(folder, log.every_steps)]
    if log.tensorboard:
        callbacks.append(board := TensorBoard(folder, log.every_steps))
        if isinstance(task, Drawing) and model is not None:
            pictures = Pictures(board, lambda: pictures_of(task, validation, model()))
            callbacks.append(guarded("Pictures", pictures))
    callbacks += named_callbacks(folder, recipe)
    return CallbackList([*callbacks, *([] if callback is None else [callback])])

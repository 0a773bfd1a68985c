"""Validation pictures with what the model says drawn onto them, in TensorBoard beside the numbers."""

from collections.abc import Callable, Iterator
from pathlib import PurePath

import numpy as np
import torch
from PIL import Image
from torch import nn

from crosshead.data.base import ImageSet
from crosshead.data.decode.images import BrokenImage
from crosshead.tasks import Drawing, Task
from crosshead.train.events import EndRecord, EvalRecord, EventRecord, RunInfo, StepRecord
from crosshead.train.logging.log_files import TensorBoard

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

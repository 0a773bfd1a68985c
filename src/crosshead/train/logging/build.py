"""Who watches a run: the logs on disk, what the recipe names, and the caller."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from crosshead.data.base import ImageSet
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Drawing, Task
from crosshead.train.events import Callback
from crosshead.train.logging.files import CallbackList, JsonLines, TensorBoard
from crosshead.train.logging.pictures import Pictures, pictures_of
from crosshead.train.logging.services import guarded, named_callbacks


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

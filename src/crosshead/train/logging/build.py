"""Who watches a run: the logs on disk, what the recipe names, and the caller."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from crosshead.data.base import ImageSet
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Drawing, Task
from crosshead.train.events import Observer
from crosshead.train.logging.files import Audience, JsonLines, TensorBoard
from crosshead.train.logging.pictures import Pictures, pictures_of
from crosshead.train.logging.services import further_observers, guarded


def gather_audience(
    folder: Path,
    recipe: Recipe,
    observer: Observer | None,
    task: Task,
    validation: ImageSet,
    model: Callable[[], nn.Module] | None,
) -> Audience:
    """All observers of a run, for rank 0. TensorBoard gets pictures where the task draws and ``model``, the one
    to evaluate, is given: it is not where a process holds only a part of it."""
    log = recipe.log
    observers: list[Observer] = [JsonLines(folder, log.every_steps)]
    if log.tensorboard:
        observers.append(board := TensorBoard(folder, log.every_steps))
        if isinstance(task, Drawing) and model is not None:
            pictures = Pictures(board, lambda: pictures_of(task, validation, model()))
            observers.append(guarded("Pictures", pictures))
    observers += further_observers(folder, recipe)
    return Audience([*observers, *([] if observer is None else [observer])])

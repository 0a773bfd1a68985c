"""Who watches a run: the logs on disk, what the recipe names, and the caller."""

from pathlib import Path

from crosshead.data.sets.common import ImageSet
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Drawing, Task
from crosshead.train.keeping.state import TrainState
from crosshead.train.processes.sharding import is_sharded
from crosshead.train.telling.further import further_observers, guarded
from crosshead.train.telling.observers import Audience, JsonLines, TensorBoard
from crosshead.train.telling.pictures import Pictures, pictures_of
from crosshead.train.telling.records import Observer


def gather_audience(
    folder: Path,
    recipe: Recipe,
    observer: Observer | None,
    task: Task,
    validation: ImageSet,
    state: TrainState,
) -> Audience:
    """All observers of a run, for rank 0. TensorBoard gets pictures where the task draws and one process alone can ask
    the model."""
    log = recipe.log
    observers: list[Observer] = [JsonLines(folder, log.every_steps)]
    if log.tensorboard:
        observers.append(board := TensorBoard(folder, log.every_steps))
        if isinstance(task, Drawing) and not is_sharded(state.model):
            pictures = Pictures(board, lambda: pictures_of(task, validation, state.evaluated_model))
            observers.append(guarded("Pictures", pictures))
    observers += further_observers(folder, recipe)
    return Audience([*observers, *([] if observer is None else [observer])])

"""What predictions mean: all that the trainer does not know of a task."""

from collections.abc import Callable

from crosshead.data.base import DatasetInfo
from crosshead.data.transforms.pipeline import check_channels
from crosshead.recipe.schema import Recipe
from crosshead.tasks.classify import ClassifyTask
from crosshead.tasks.detect import DetectTask
from crosshead.tasks.metrics import METRICS, Metric
from crosshead.tasks.multilabel import MultilabelTask
from crosshead.tasks.protocol import Drawing, Evaluation, Judgement, Step, Task
from crosshead.tasks.regress import RegressTask
from crosshead.tasks.segment import SegmentTask

TASKS: dict[str, Callable[[Recipe, DatasetInfo], Task]] = {
    "classify": ClassifyTask,
    "multilabel": MultilabelTask,
    "regress": RegressTask,
    "segment": SegmentTask,
    "detect": DetectTask,
}


def open_task(recipe: Recipe, info: DatasetInfo) -> Task:
    """The task of a recipe, for the data that ``info`` describes."""
    check_channels(recipe.augment, info)
    return TASKS[recipe.task.name](recipe, info)


__all__ = [
    "METRICS",
    "TASKS",
    "ClassifyTask",
    "DetectTask",
    "Drawing",
    "Evaluation",
    "Judgement",
    "Metric",
    "SegmentTask",
    "Step",
    "Task",
    "open_task",
]

"""The tasks by name. One that is registered is found by ``task.name`` of a recipe."""

from collections.abc import Callable
from typing import TypeVar

from crosshead.data.base import DatasetInfo
from crosshead.data.transforms.pipeline import check_channels
from crosshead.plugins import Registry
from crosshead.recipe.schema import Recipe
from crosshead.tasks.protocol import Task

T = TypeVar("T", bound=type[Task])

TASKS: Registry[type[Task]] = Registry("crosshead.tasks", "task")


def register_task(name: str) -> Callable[[T], T]:
    """Decorator of a ``Task``'s class, which is made of a recipe and the description of its data.

    Another package offers one through an entry point of the group ``crosshead.tasks`` under that name.

    Raises:
        ValueError: for a name that is taken.
    """

    def register(cls: T) -> T:
        TASKS.add(name, cls)
        return cls

    return register


def open_task(recipe: Recipe, info: DatasetInfo) -> Task:
    """The task of a recipe, for the data that ``info`` describes.

    Raises:
        ValueError: no such task, or one that this recipe or this data is not for.
    """
    check_channels(recipe.augment, info)
    return TASKS.find(recipe.task.name, "task.name")(recipe, info)

"""What is refused before a run begins, before its time is measured, and by ``crosshead data check`` alike."""

from crosshead.data.base import DatasetInfo, Splits
from crosshead.recipe.schema import Recipe
from crosshead.tasks import Task, open_task


def precheck(recipe: Recipe, splits: Splits, info: DatasetInfo | None = None) -> Task:
    """The task of ``recipe``, which can learn from ``splits`` and be judged by them; ``info`` is what a run keeps of
    its data. Takes a second or two.

    Raises:
        ValueError: it can't.
    """
    splits.refuse_known_faults(recipe.data)
    task = open_task(recipe, info or splits.info)
    task.training_batches(splits.train, seed=0, epoch=0)
    for images in splits.parts().values():
        task.evaluation_batches(images)
    return task

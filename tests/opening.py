"""Data sets open_data by a data section alone."""

from crosshead.data.base import Splits
from crosshead.data.datasets.registry import open_splits
from crosshead.recipe.schema import DataConfig, Recipe


def recipe_of(data: DataConfig, *, seed: int = 0) -> Recipe:
    return Recipe(data=data.model_copy(update={"split_seed": seed}))


def open_data(data: DataConfig, *, seed: int = 0) -> Splits:
    return open_splits(recipe_of(data, seed=seed))

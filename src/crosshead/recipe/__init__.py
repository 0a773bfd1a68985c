"""Recipes: what a run is, as a checked object."""

from crosshead.recipe.compose import default_recipe, dump_recipe, find_recipe, load_recipe, shipped_recipes
from crosshead.recipe.schema import Recipe
from crosshead.recipe.yaml import RecipeError

__all__ = [
    "Recipe",
    "RecipeError",
    "default_recipe",
    "dump_recipe",
    "find_recipe",
    "load_recipe",
    "shipped_recipes",
]

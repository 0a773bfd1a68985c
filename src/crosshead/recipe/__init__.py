"""Recipes: what a run is, as a checked object."""

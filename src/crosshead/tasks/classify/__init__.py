"""Classification: one class an image."""

from crosshead.tasks.classify.classification import ClassifyTask

__all__ = ["ClassifyTask"]

"""Classification: one class an image."""

from crosshead.tasks.classify.task import ClassifyTask

__all__ = ["ClassifyTask"]

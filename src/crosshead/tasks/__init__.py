"""What predictions mean: the loss to train with and the metrics to judge by."""

from crosshead.tasks.classify import ClassifyTask

__all__ = ["ClassifyTask"]

"""Detection and instance segmentation: boxes, and masks where the model gives them."""

from crosshead.tasks.detect.detection import DetectTask

__all__ = ["DetectTask"]

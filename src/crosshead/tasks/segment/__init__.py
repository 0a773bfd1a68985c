"""Semantic segmentation: one class a pixel."""

from crosshead.tasks.segment.task import SegmentTask

__all__ = ["SegmentTask"]

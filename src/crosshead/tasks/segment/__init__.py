"""Semantic segmentation: one class a pixel."""

from crosshead.tasks.segment.segmentation import SegmentTask

__all__ = ["SegmentTask"]

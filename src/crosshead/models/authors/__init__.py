"""Checkpoints of the MOHSA authors' code, read into this library's models."""

from .checkpoint import AuthorsCheckpoint, from_authors_state, has_marks, load_authors_checkpoint

__all__ = ["AuthorsCheckpoint", "from_authors_state", "has_marks", "load_authors_checkpoint"]

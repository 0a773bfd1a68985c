"""Logs on disk, services, curves and pictures of a run."""

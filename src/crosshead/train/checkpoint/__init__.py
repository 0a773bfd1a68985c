"""Checkpoints: what is in one, writing them, and going on from one."""

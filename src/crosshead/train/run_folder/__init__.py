"""The run folder: what lies in it, and its lock."""

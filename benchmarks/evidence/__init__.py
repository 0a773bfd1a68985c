"""What interacting heads are good for, measured: parts that go on where they stopped (``python -m evidence``)."""

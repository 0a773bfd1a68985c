"""Training steps, evaluation, the optimizer, the devices, the end of a run."""

"""What is told of a run: records, logs, curves, the result."""

"""From a set to batches: order, random keys, loaders."""

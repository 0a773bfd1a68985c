"""From a data set to batches: their order, and the loader that makes them."""

"""Statistics of runs against runs: what several seeds allow to be said of two recipes."""

"""What joins processes: the group, shards of a model, the watchdog."""

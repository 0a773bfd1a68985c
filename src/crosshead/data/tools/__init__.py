"""What is asked of data beside training: checks, and packing into shards."""

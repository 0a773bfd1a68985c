"""The data sets, each a file, and how one is split."""

"""What keeps a run: its folder, its checkpoints, going on from them."""

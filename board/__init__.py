"""The board's hardware behind small interfaces; nothing here imports app or host."""

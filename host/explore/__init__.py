"""`tutelage explore`: networks that fit a budget on a board, before any training."""

"""Which network fits a budget on a board, before anything is trained."""

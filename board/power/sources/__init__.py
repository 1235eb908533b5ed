"""Where power readings come from."""

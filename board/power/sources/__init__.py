"""Sources of power readings."""

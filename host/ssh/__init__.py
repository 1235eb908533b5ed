"""Access to machines by SSH."""

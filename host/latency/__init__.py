"""Fit of the latency model to the speed that AMD publishes."""
